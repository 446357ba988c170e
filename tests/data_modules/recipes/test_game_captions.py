"""Captions of game views against the simulator itself."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_modules.recipes.describe import Thing, View, colour_name, counted, describe, phrases, place_of, word_for
from data_modules.recipes.emoji_groups import emoji_group
from data_modules.recipes.game_captions import game_captions
from data_modules.recipes.packages import package_folder
from lit_mm.mistake import Mistake

Hashes = Callable[[Path], dict[str, str]]
OPTIONS: dict[str, Any] = {"train_maps": ("map01",), "val_maps": ("E2M1",), "train_views": 40, "val_views": 12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "game_captions"
    game_captions(out, **OPTIONS, workers=2)
    return out


def rows(folder: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / split / "metadata.jsonl").read_text().splitlines()]


class Simulator:
    """A game of its own, which is put into recorded poses."""

    def __init__(self, wad: str, level: str, folder: Path) -> None:
        import vizdoom

        button, variable = vizdoom.Button, vizdoom.GameVariable
        self.game = game = vizdoom.DoomGame()
        game.set_doom_config_path(str(folder / "look.ini"))
        game.set_doom_game_path(str(package_folder("vizdoom") / wad))
        game.set_doom_map(level)
        game.set_available_buttons([button.TURN_LEFT_RIGHT_DELTA])
        game.set_available_game_variables([variable.POSITION_X, variable.POSITION_Y, variable.ANGLE])
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_640X480)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_labels_buffer_enabled(True)
        game.set_window_visible(False)
        game.set_render_hud(False)
        game.set_render_weapon(False)
        game.set_episode_timeout(2**30)
        game.set_seed(5)
        game.init()
        for command in ("god", "notarget"):
            game.send_game_command(command)

    def look(self, pose: dict[str, Any]) -> Any:
        """The state at a pose."""
        self.game.send_game_command(f"warp {pose['x']} {pose['y']}")
        self.game.make_action([0.0], 20)  # until the eye is at its height again
        for _ in range(5):
            _, _, angle = self.game.get_state().game_variables
            off = (angle - pose["angle"] + 180) % 360 - 180
            if abs(off) < 0.01:
                break
            self.game.make_action([off], 1)
        return self.game.get_state()


@pytest.fixture
def simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    monkeypatch.chdir(tmp_path)
    game = Simulator("freedoom2.wad", "map01", tmp_path)
    yield game
    game.game.close()


def test_what_is_said_to_be_left_or_right_is_there_when_one_looks_again(folder: Path, simulator: Simulator) -> None:
    checked: Counter[str] = Counter()
    failed = []
    for row in rows(folder, "train"):
        # Things that do not move, so that they are where they were.
        for word, kind in {"stalagmite": "Stalagtite", "big tree": "BigTree", "medikit": "Medikit"}.items():
            for side in re.findall(
                rf"(?:a|two|three|several) {word}s? (?:close |far )?(on the left|on the right)", row["caption"]
            ):
                state = simulator.look(row)
                # The square is the middle 480 of 640 columns; what sticks out of it is not seen.
                boxes = [(label.x, label.x + label.width) for label in state.labels if label.object_name == kind]
                inside = [(max(80, start), min(560, stop)) for start, stop in boxes]
                middles = [(start + stop) / 2 for start, stop in inside if start < stop]
                checked[side] += 1
                if not any((x < 320) == (side == "on the left") for x in middles):
                    failed.append((row["caption"], middles))
    assert min(checked["on the left"], checked["on the right"]) >= 3
    assert not failed


def test_pictures_are_what_is_seen_from_the_recorded_pose(folder: Path, simulator: Simulator) -> None:
    errors, others = [], []
    pictures = [np.asarray(Image.open(folder / "train" / row["file_name"]), float) for row in rows(folder, "train")]
    for row, picture in zip(rows(folder, "train")[:12], pictures, strict=False):
        screen = Image.fromarray(simulator.look(row).screen_buffer).crop((80, 0, 560, 480))
        again = np.asarray(screen.resize((64, 64), Image.Resampling.BOX), float)
        again = 255 * (again / 255) ** (1 / 1.5)
        errors.append(np.abs(again - picture).mean())
        others.append(min(np.abs(again - other).mean() for other in pictures if other is not picture))
    assert np.mean(np.array(errors) < others) > 0.8


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(
    folder: Path, tmp_path: Path, hashes: Hashes
) -> None:
    game_captions(tmp_path / "again", **OPTIONS, workers=1)
    assert hashes(tmp_path / "again") == hashes(folder)
    game_captions(tmp_path / "other", **OPTIONS, seed=1, workers=2)
    assert (tmp_path / "other" / "train" / "metadata.jsonl").read_bytes() != (
        folder / "train" / "metadata.jsonl"
    ).read_bytes()


def test_files_rows_and_counts_agree_and_captions_vary(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    for split, level, count in (("train", "map01", 40), ("val", "E2M1", 12)):
        of_split = rows(folder, split)
        assert {row["map"] for row in of_split} == {level}
        assert sorted(row["file_name"] for row in of_split) == sorted(p.name for p in (folder / split).glob("*.png"))
        assert manifest["counts"][f"{split} views"] == len(of_split) == count
        assert all(Image.open(folder / split / row["file_name"]).size == (64, 64) for row in of_split)
        assert len({row["caption"] for row in of_split}) > 0.8 * count
    assert "Freedoom" in (folder / "LICENCES.txt").read_text()
    assert not (folder / "scratch").exists()


def test_maps_on_both_sides_or_unknown_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"train_maps, val_maps: \['E1M1'\] are in both"):
        game_captions(tmp_path / "x", ("map01", "E1M1"), ("e1m1",))
    with pytest.raises(Mistake, match="'freedoom1.wad' has no map 'E9M9'"):
        game_captions(tmp_path / "x", ("map01",), ("E9M9",))
    with pytest.raises(Mistake, match="train_views, val_views, size: 0, 75, 64 were given; positive numbers"):
        game_captions(tmp_path / "x", train_views=0)
    assert not any(tmp_path.iterdir())


# ---- words


def thing(
    name: str, centre: float = 0.5, distance: float = 300.0, area: float = 0.01, category: str = "Monster"
) -> Thing:
    return Thing(name, category, centre, area, distance)


def test_things_are_counted_by_kind_and_side_the_largest_first() -> None:
    seen = [
        thing("DoomImp", 0.1, 700, 0.01),
        thing("DoomImp", 0.2, 900, 0.01),
        thing("DoomImp", 0.9, 100, 0.01),
        thing("ShellBox", 0.5, 200, 0.3, "Ammo"),
        thing("ShellBox", 0.6, 200, 0.3, "Ammo"),
    ]
    assert phrases(seen) == ["two boxes of shells ahead", "two imps far on the left", "an imp close on the right"]


@pytest.mark.parametrize(
    ("name", "category", "count", "said"),
    [
        ("BurningBarrel", "LightSource", 1, "a burning barrel"),
        ("Arachnotron", "Monster", 1, "an arachnotron"),
        ("ShortRedTorch", "LightSource", 3, "three short red torches"),
        ("DeadStick", "Gore", 2, "two bodies on a stick"),
        ("DeadCacodemon", "Gore", 1, "a dead cacodemon"),
        ("NonsolidMeat5", "Gore", 2, "remains"),
        ("TechLamp2", "LightSource", 9, "several tech lamps"),
    ],
)
def test_kinds_are_named_in_plain_words(name: str, category: str, count: int, said: str) -> None:
    assert counted(word_for(thing(name, category=category)), count) == said


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((255, 0, 0), "red"),
        ((0, 0, 200), "blue"),
        ((40, 160, 40), "green"),
        ((120, 80, 40), "brown"),
        ((60, 60, 60), "dark grey"),
        ((130, 130, 128), "grey"),
        ((250, 250, 250), "white"),
        ((5, 5, 5), "black"),
        ((240, 220, 40), "yellow"),
        ((140, 40, 160), "purple"),
    ],
)
def test_colours_have_their_everyday_names(rgb: tuple[int, int, int], name: str) -> None:
    assert colour_name(np.array(rgb)) == name


@pytest.mark.parametrize(
    ("left", "ahead", "right", "place"),
    [
        (300, 50, 300, "dead end"),
        (100, 600, 150, "corridor"),
        (600, 700, 500, "wide hall"),
        (300, 300, 300, "room"),
        (300, 600, 300, "long room"),
        (50, 300, 300, "room along a wall on the left"),
        (300, 300, 60, "room along a wall on the right"),
    ],
)
def test_places_are_told_by_the_distances_around(left: float, ahead: float, right: float, place: str) -> None:
    depth = np.full((120, 120), 30.0)
    for columns, distance in zip(np.array_split(np.arange(120), 3), (left, ahead, right), strict=True):
        depth[40:70, columns] = distance
    assert place_of(depth) == place


def test_a_caption_says_light_place_colours_and_things() -> None:
    picture = np.zeros((120, 120, 3), np.uint8)
    picture[:66] = (20, 20, 120)
    picture[66:] = (120, 80, 40)
    covered = np.zeros((120, 120), bool)
    covered[:, :80] = True
    picture[:, :80] = (250, 20, 20)  # what covers them has no say in the colours of walls and floor
    view = View(picture, np.full((120, 120), 300.0), covered, [thing("Demon", 0.2)])
    assert describe(view) == "a room with blue walls and a brown floor, a demon on the left"
    dark = View(picture // 6, view.depth, covered, [])
    assert describe(dark).startswith("a dark room with ")


# ---- groups of emoji


@pytest.mark.parametrize(
    ("emoji", "group"),
    [
        ("😀", "smileys-emotion"),
        ("👩🏽‍🚀", "people-body"),
        ("🐙", "animals-nature"),
        ("🍓", "food-drink"),
        ("🚀", "travel-places"),
        ("🎾", "activities"),
        ("🎻", "objects"),
        ("♻", "symbols"),
        ("🇫🇷", "flags"),
        ("👁️‍🗨️", "smileys-emotion"),
        ("👁", "people-body"),
        ("\U000f0000", "unlisted"),
    ],
)
def test_emoji_are_in_the_groups_of_the_standard(emoji: str, group: str) -> None:
    assert emoji_group("-".join(f"{ord(c):X}" for c in emoji)) == group


def test_every_drawing_has_a_group(drawing_folder: Path) -> None:
    counts = Counter(row["group"] for split in ("train", "val") for row in rows(drawing_folder, split))
    assert counts["people-body"] == max(counts.values())
    assert counts["flags"] >= 258  # one for each country of ISO 3166 and some more
    assert len(counts) == 10
    assert "unlisted" not in counts

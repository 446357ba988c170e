"""Game play against the simulator itself."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from data_modules.recipes import gameplay as recipe
from data_modules.recipes.gameplay import gameplay, raw_gameplay
from data_modules.recipes.packages import package_folder
from lit_mm.mistake import Mistake

Hashes = Callable[[Path], dict[str, str]]
BUTTONS = ("W", "A", "S", "D", "LEFT", "RIGHT")


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(float)


def replay(level: str, table: list[dict[str, str]], folder: Path) -> tuple[list[tuple[float, ...]], np.ndarray]:
    """Poses and screens of the simulator when it starts at the table's first pose and is given the table's keys."""
    import vizdoom

    game = vizdoom.DoomGame()
    game.set_doom_config_path(str(folder / "replay.ini"))
    game.set_doom_game_path(str(package_folder("vizdoom") / "freedoom2.wad"))
    game.set_doom_map(level)
    button, variable = vizdoom.Button, vizdoom.GameVariable
    moves = [button.MOVE_FORWARD, button.MOVE_LEFT, button.MOVE_BACKWARD, button.MOVE_RIGHT]
    game.set_available_buttons([*moves, button.TURN_LEFT, button.TURN_RIGHT])
    game.set_available_game_variables([variable.POSITION_X, variable.POSITION_Y, variable.ANGLE])
    game.set_window_visible(False)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_render_hud(False)
    game.set_render_weapon(False)
    game.add_game_args("-nomonsters")
    game.set_seed(0)
    game.init()
    game.send_game_command(f"warp {table[0]['x']} {table[0]['y']}")
    for _ in range(200):
        if game.get_state().game_variables[2] == pytest.approx(float(table[0]["angle"])):
            break
        game.make_action([0, 0, 0, 0, 1, 0], 1)
    game.make_action([0] * 6, 35)
    poses, screens = [], []
    for row in table:
        state = game.get_state()
        poses.append(tuple(state.game_variables))
        middle = Image.fromarray(state.screen_buffer).crop((40, 0, 280, 240))
        screens.append(np.asarray(middle.resize((64, 64), Image.Resampling.BOX), dtype=float))
        game.make_action([int(name in row["keys"].split("+")) for name in BUTTONS], 4)
    game.close()
    return poses, np.stack(screens)


@pytest.mark.parametrize("name", ["train/freedoom2_map01_01", "val/freedoom2_map14_00"])
def test_an_independent_replay_of_the_keys_meets_the_same_poses_and_pictures(
    gameplay_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    table = read_table(gameplay_folder / f"{name}.csv")
    poses, screens = replay(name.split("_")[1], table, tmp_path)
    recorded = [(float(row["x"]), float(row["y"]), float(row["angle"])) for row in table]
    assert np.ptp([pose[:2] for pose in poses], axis=0).max() > 30, "the player stood still"
    assert recorded == poses

    # Brighter by v ** (1 / 1.5) and compressed: each frame must be nearer to its own screen than to its neighbours'.
    expected = 255 * (screens / 255) ** (1 / 1.5)
    frames = read_frames(gameplay_folder / f"{name}.mp4")
    assert np.abs(frames - expected).mean() < 8
    moving = [i for i in range(1, len(table)) if np.abs(expected[i] - expected[i - 1]).mean() > 8]
    assert len(moving) > 10
    for i in moving:
        assert np.abs(frames[i] - expected[i]).mean() < np.abs(frames[i] - expected[i - 1]).mean()


def test_the_same_seed_gives_the_same_bytes_whatever_the_order_and_number_of_workers(
    gameplay_folder: Path, gameplay_options: dict[str, Any], tmp_path: Path, hashes: Hashes
) -> None:
    expected = hashes(gameplay_folder)
    gameplay(tmp_path / "again", **gameplay_options, workers=1)
    assert hashes(tmp_path / "again") == expected
    gameplay(tmp_path / "turned", **{**gameplay_options, "train_maps": ("map15", "map01")}, workers=2)
    episodes = {name: digest for name, digest in expected.items() if name.endswith((".mp4", ".csv"))}
    assert len(episodes) == 8
    assert episodes.items() <= hashes(tmp_path / "turned").items()


def test_another_seed_gives_other_episodes(
    gameplay_folder: Path, gameplay_options: dict[str, Any], tmp_path: Path, hashes: Hashes
) -> None:
    gameplay(tmp_path / "other", **gameplay_options, seed=1)
    one, other = hashes(gameplay_folder), hashes(tmp_path / "other")
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one if name.endswith((".mp4", ".csv")))


def test_tables_and_videos_have_one_row_a_frame_and_cheap_random_access(gameplay_folder: Path) -> None:
    videos = sorted(gameplay_folder.rglob("*.mp4"))
    assert len(videos) == 4
    for video in videos:
        table = read_table(video.with_suffix(".csv"))
        assert list(table[0]) == ["frame", "keys", "x", "y", "angle"]
        assert [int(row["frame"]) for row in table] == list(range(50))
        assert {key for row in table for key in row["keys"].split("+")} <= {*BUTTONS, ""}
        assert table[-1]["keys"] == ""
        assert read_frames(video).shape == (50, 64, 64, 3)
        with av.open(str(video)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            assert container.streams.video[0].average_rate == pytest.approx(35 / 4)
        assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == list(range(0, 50, 8))
        assert all(packet.pts == packet.dts for packet in packets)  # no B frames: decoded in the order shown


def test_no_map_is_on_both_sides() -> None:
    kinds = [recipe.TRAIN_MAPS, recipe.VAL_MAPS, recipe.RAW_TRAIN_MAPS, recipe.RAW_VAL_MAPS]
    assert len(set().union(*kinds)) == sum(len(kind) for kind in kinds)


def test_a_map_on_both_sides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"train_maps, val_maps: \['MAP01'\] are in both"):
        gameplay(tmp_path / "x", ("map01", "map03"), ("MAP01",))


def test_raw_game_play_is_video_without_tables(tmp_path: Path) -> None:
    raw_gameplay(tmp_path / "video", ("E1M1",), ("E2M1",), episodes=1, frames=30, size=32)
    files = sorted(path.relative_to(tmp_path / "video").as_posix() for path in tmp_path.glob("video/*/*"))
    assert files == ["train/freedoom1_E1M1_00.mp4", "val/freedoom1_E2M1_00.mp4"]
    frames = read_frames(tmp_path / "video" / files[0])
    assert frames.shape == (30, 32, 32, 3)
    assert np.abs(np.diff(frames, axis=0)).mean() > 2, "nothing moves"

"""Views of a first-person game, each with a caption made from what the game's engine knows about it."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data_modules.encoding import resize
from data_modules.game.episode import BUTTONS, Episode, brightening, middle, start
from data_modules.game.wad import things
from data_modules.recipes.describe import Thing, View, describe
from data_modules.recipes.episodes import LICENCE, Plan, check_splits
from data_modules.recipes.gameplay import GAMMA, RAW_TRAIN_MAPS, RAW_VAL_MAPS, TRAIN_MAPS, VAL_MAPS
from data_modules.recipes.packages import package_versions
from data_modules.recipes.prepare import Counts, prepare
from data_modules.recipes.workers import Job, run_jobs
from lit_mm.mistake import Mistake

# Types of monsters (doomwiki.org/wiki/Thing_types). Whoever is set down where one stands kills it.
MONSTERS = {7, 9, 16, 58, 64, 65, 66, 67, 68, 69, 71, 72, 84, 88, 89, 3001, 3002, 3003, 3004, 3005, 3006}
UNITS_PER_DEPTH = 7.45  # map units in one step of the engine's depth buffer, measured on things of known place
SMALLEST = 0.002  # share of the view that a thing must fill to be named: eight pixels of 64 x 64
MOST_ALIKE = 2  # views of a map with the same caption; one, where it names no thing
DARKEST, FLATTEST = 14.0, 7.0  # mean and deviation (of 255) below which a view shows nothing
EVERY = 2  # of so many rows and columns of the screen, one is looked at
TRIES = 6  # places tried for each view wanted


class Sight(NamedTuple):
    """A picture (size, size, 3) uint8, its caption, and the pose it was seen from."""

    picture: np.ndarray
    caption: str
    x: float
    y: float
    angle: float


def game_captions(
    out: Path,
    train_maps: tuple[str, ...] = TRAIN_MAPS + RAW_TRAIN_MAPS,
    val_maps: tuple[str, ...] = VAL_MAPS + RAW_VAL_MAPS,
    train_views: int = 240,
    val_views: int = 75,
    size: int = 64,
    seed: int = 0,
    workers: int = 2,
) -> Counts:
    """Write views of ViZDoom with captions, in the "imagefolder" layout of Hugging Face datasets.

    Args:
        out: folder to make: train/*.png with train/metadata.jsonl, and val/ alike. Its keys are "file_name", "caption",
            and the pose: "map", "x", "y" in map units, "angle" in degrees counter-clockwise.
        train_maps: maps of Freedoom to train on, "E1M1" (Freedoom 1) or "map01" (Freedoom 2).
        val_maps: maps held out.
        train_views: of each training map; fewer where a map has not as many that differ.
        val_views: of each held-out map.
        size: side of the square pictures in pixels.
        seed: the same seed gives the same bytes, with any number of workers.
        workers: processes to play in.
    """
    plan = _plan({"train": train_maps, "val": val_maps}, {"train": train_views, "val": val_views}, size, seed)
    settings = {
        "version": 1,
        "views": {split: [asdict(episode) for episode in episodes] for split, episodes in plan.items()},
        "packages": package_versions("vizdoom"),
    }

    def fill(folder: Path) -> Counts:
        return _write(folder, plan, workers)

    return prepare(out, "game_captions", settings, fill)


def _plan(maps: dict[str, tuple[str, ...]], views: dict[str, int], size: int, seed: int) -> Plan:
    check_splits(maps)
    if min(*views.values(), size) < 1:
        found = f"{views['train']}, {views['val']}, {size}"
        raise Mistake(f"train_views, val_views, size: {found} were given; positive numbers are needed")
    plan: Plan = {split: [] for split in maps}
    for split, names in maps.items():
        for level in names:
            wad = "freedoom2" if level.lower().startswith("map") else "freedoom1"
            episode = Episode(wad, level, 0, views[split], tics=1, size=size, seed=seed, monsters=True, gamma=GAMMA)
            things(episode.wad_file, level)
            plan[split].append(episode)
    return plan


def _write(folder: Path, plan: Plan, workers: int) -> Counts:
    jobs: dict[Job, str] = {}
    for split, episodes in plan.items():
        (folder / split).mkdir()
        jobs |= {(write_sights, folder / split, episode): split for episode in episodes}
    rows = dict(run_jobs(jobs, folder / "scratch", workers, "captioned game views"))
    counts = {}
    for split in plan:
        lines = [line for job in jobs if jobs[job] == split for line in rows[job]]
        (folder / split / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        counts[f"{split} views"] = len(lines)
    (folder / "LICENCES.txt").write_text(LICENCE, encoding="utf-8")
    return counts


def write_sights(folder: Path, episode: Episode) -> list[str]:
    """Write the pictures of one map into `folder` and return their lines of metadata.jsonl."""
    lines = []
    for number, sight in enumerate(look_around(episode, config=f"{episode.name}.ini")):
        name = f"{episode.wad}_{episode.level}_{number:03d}.png"
        Image.fromarray(sight.picture).save(folder / name)
        pose = {"map": episode.level, "x": sight.x, "y": sight.y, "angle": sight.angle}
        lines.append(json.dumps({"file_name": name, "caption": sight.caption, **pose}))
    return lines


def look_around(episode: Episode, config: str) -> Iterator[Sight]:
    """`episode.frames` views from where things lie on a map, a few steps further, in any direction.

    Equal episodes give equal sights. Monsters stand still, for they do not notice the player.
    """
    key = zlib.crc32(f"{episode.wad} {episode.level} views".encode())
    random = np.random.default_rng([episode.seed, key])
    places = [(x, y) for x, y, kind in things(episode.wad_file, episode.level) if kind not in MONSTERS]
    curve = brightening(episode.gamma)
    seen: Counter[str] = Counter()
    game = start(episode, config, labels=True)
    try:
        for command in ("god", "notarget"):
            game.send_game_command(command)
        for _ in range(TRIES * episode.frames):
            x, y = places[int(random.integers(len(places)))]
            game.send_game_command(f"warp {x} {y}")
            turn, steps = float(random.uniform(-180, 180)), int(random.integers(1, 9))
            game.set_action(_keys(turn=turn))
            game.advance_action(1, False)  # without drawing it
            game.make_action(_keys(forward=True), steps)
            if game.is_episode_finished():  # it walked into the exit
                return
            state = game.get_state()
            view = view_of(state, curve)
            small = curve[resize(middle(state.screen_buffer), episode.size, episode.size)]
            caption = describe(view)
            shows_little = small.mean() < DARKEST or small.std() < FLATTEST
            if shows_little or seen[caption] == (MOST_ALIKE if view.things else 1):
                continue
            seen[caption] += 1
            yield Sight(small, caption, *(float(value) for value in state.game_variables))
            if seen.total() == episode.frames:
                return
    finally:
        game.close()


def _keys(forward: bool = False, turn: float = 0.0) -> list[float]:
    return [float(forward and name == "W") for name in BUTTONS] + [turn]


def view_of(state: Any, curve: np.ndarray) -> View:
    """The square in the middle of the screen with what the engine knows about it; `curve` brightens the picture."""
    labels = middle(state.labels_buffer)[::EVERY, ::EVERY]
    x, y = state.game_variables[:2]
    columns = (np.arange(labels.shape[1]) + 0.5) / labels.shape[1]
    seen = []
    for label in state.labels:
        mask = labels == label.value
        area = float(mask.mean())
        if area >= SMALLEST:
            centre = float((mask.sum(axis=0) * columns).sum() / mask.sum())
            distance = float(np.hypot(label.object_position_x - x, label.object_position_y - y))
            seen.append(Thing(label.object_name, label.object_category, centre, area, distance))
    depth = middle(state.depth_buffer)[::EVERY, ::EVERY] * UNITS_PER_DEPTH
    return View(curve[middle(state.screen_buffer)[::EVERY, ::EVERY]], depth, labels > 0, seen)

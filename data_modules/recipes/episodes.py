"""Episodes played in processes of their own, and written as MP4 files with tables."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

from data_modules.encoding import write_video
from data_modules.game.episode import TICS_PER_SECOND, Episode, play
from data_modules.game.wad import starting_places
from data_modules.recipes.packages import package_versions
from data_modules.recipes.prepare import Counts
from data_modules.recipes.workers import Job, run_jobs
from lit_mm.mistake import Mistake

LICENCE = """Game play: levels and art of Freedoom (freedoom.github.io), BSD-3-Clause, (c) contributors to the Freedoom
project, played by a script in ViZDoom (its own code MIT), as packaged in "vizdoom".
"""
CRF = 17
Plan = dict[str, list[Episode]]


def plan_episodes(splits: dict[str, Sequence[str]], episodes: int, common: Episode) -> Plan:
    """Episodes of each split: `episodes` on each of its maps, all else as in `common`.

    Raises:
        Mistake: the splits share a map, one has none, there is no such map, or a number is out of range.
    """
    check_splits(splits)
    if min(episodes, common.frames, common.size) < 1 or common.size % 2:
        found = f"{episodes}, {common.frames}, {common.size}"
        raise Mistake(f"episodes, frames, size: {found} were given; positive numbers and an even size are needed")
    for level in (*splits["train"], *splits["val"]):
        starting_places(common.wad_file, level)
    return {
        split: [Episode(**asdict(common) | {"level": level, "number": n}) for level in maps for n in range(episodes)]
        for split, maps in splits.items()
    }


def check_splits(splits: Mapping[str, Sequence[str]]) -> None:
    """Check that no map is to be trained on and held out.

    Raises:
        Mistake: the splits share a map, or one has none.
    """
    shared = {level.upper() for level in splits["train"]} & {level.upper() for level in splits["val"]}
    if shared:
        raise Mistake(f"train_maps, val_maps: {sorted(shared)} are in both; a map can be on one side only")
    if not splits["train"] or not splits["val"]:
        raise Mistake("train_maps, val_maps: one of them is empty; each needs at least one map")


def plan_settings(plan: Plan) -> dict[str, object]:
    """All that decides what the files of a plan contain."""
    episodes = {split: [asdict(episode) for episode in of_split] for split, of_split in plan.items()}
    return {"version": 1, "crf": CRF, "episodes": episodes, "packages": package_versions("vizdoom", "av")}


def write_episodes(folder: Path, plan: Plan, workers: int, tables: bool) -> Counts:
    """Play and write all episodes of a plan.

    Args:
        folder: gets train/<episode>.mp4 and val/<episode>.mp4.
        plan: the episodes of each split.
        workers: processes to play in; the files do not depend on it.
        tables: whether to write <episode>.csv too, with one row a frame.

    Raises:
        Mistake: there are no workers.
    """
    counts: Counts = {}
    jobs: dict[Job, str] = {}
    for split, episodes in plan.items():
        (folder / split).mkdir(exist_ok=True)
        counts |= {f"{split} episodes": len(episodes), f"{split} game frames": 0}
        jobs |= {(write_episode, folder / split, episode, tables): split for episode in episodes}
    for job, frames in run_jobs(jobs, folder / "scratch", workers, "game play"):
        counts[f"{jobs[job]} game frames"] += frames
    return counts


def write_episode(folder: Path, episode: Episode, table: bool) -> int:
    """Play one episode, write its files into `folder` and return the number of frames."""
    moments = play(episode, config=f"{episode.name}.ini")
    rate = Fraction(TICS_PER_SECOND, episode.tics)
    write_video(folder / f"{episode.name}.mp4", (moment.image for moment in moments), rate, CRF)
    if table:
        with open(folder / f"{episode.name}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("frame", "keys", "x", "y", "angle"))
            for number, moment in enumerate(moments):
                writer.writerow((number, "+".join(moment.keys), moment.x, moment.y, moment.angle))
    return len(moments)

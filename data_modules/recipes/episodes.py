"""Episodes played in processes of their own, and written as MP4 files with tables."""

from __future__ import annotations

import csv
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

from rich.progress import track

from data_modules.recipes.encode import write_video
from data_modules.recipes.game import TICS_PER_SECOND, Episode, play
from data_modules.recipes.packages import package_versions
from data_modules.recipes.prepare import Counts
from data_modules.recipes.wad import starting_places

LICENCE = """Game play: levels and art of Freedoom (freedoom.github.io), BSD-3-Clause, (c) contributors to the Freedoom
project, played by a script in ViZDoom (its own code MIT), as packaged in "vizdoom".
"""
CRF = 17
Plan = dict[str, list[Episode]]


def plan_episodes(splits: dict[str, Sequence[str]], episodes: int, common: Episode) -> Plan:
    """Episodes of each split: `episodes` on each of its maps, all else as in `common`.

    Raises:
        ValueError: the splits share a map, one has none, there is no such map, or a number is out of range.
    """
    shared = {level.upper() for level in splits["train"]} & {level.upper() for level in splits["val"]}
    if shared:
        raise ValueError(f"train_maps, val_maps: {sorted(shared)} are in both; a map can be on one side only")
    if not splits["train"] or not splits["val"]:
        raise ValueError("train_maps, val_maps: one of them is empty; each needs at least one map")
    if min(episodes, common.frames, common.size) < 1 or common.size % 2:
        found = f"{episodes}, {common.frames}, {common.size}"
        raise ValueError(f"episodes, frames, size: {found} were given; positive numbers and an even size are needed")
    for level in (*splits["train"], *splits["val"]):
        starting_places(common.wad_file, level)
    return {
        split: [Episode(**asdict(common) | {"level": level, "number": n}) for level in maps for n in range(episodes)]
        for split, maps in splits.items()
    }


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
        ValueError: there are no workers.
    """
    if workers < 1:
        raise ValueError(f"workers: {workers} was given; at least one process is needed")
    counts: Counts = {}
    scratch = folder / "scratch"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(scratch,)) as pool:
        jobs: dict[Future[int], str] = {}
        for split, episodes in plan.items():
            (folder / split).mkdir(exist_ok=True)
            counts |= {f"{split} episodes": len(episodes), f"{split} game frames": 0}
            jobs |= {pool.submit(write_episode, folder / split, episode, tables): split for episode in episodes}
        try:
            for job in track(as_completed(jobs), "game play", total=len(jobs), transient=True):
                counts[f"{jobs[job]} game frames"] += job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    shutil.rmtree(scratch)
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


def _begin_worker(scratch: Path) -> None:
    """Work in a folder of its own, where the engine may leave its files, and end with the parent however it ends.

    The engine is a process too and would wait for its worker for ever, so the two form a group that ends as one.
    """
    os.setpgid(0, 0)
    own = scratch / str(os.getpid())
    own.mkdir(parents=True)
    os.chdir(own)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)

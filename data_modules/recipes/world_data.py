"""All the data of a world: maps for training, validation and tests, made in processes of their own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_modules.recipes.prepare import Counts
from data_modules.recipes.workers import Job, run_jobs
from data_modules.recipes.world import Map, WorldKind
from data_modules.recipes.world_cuts import Cut, parse_cuts
from data_modules.recipes.world_episodes import write_episodes
from data_modules.recipes.world_pictures import write_pictures
from data_modules.recipes.world_plain import write_plain
from data_modules.recipes.world_texts import write_texts
from data_modules.recipes.world_turns import entry
from lit_mm.lab.scene import WorldFile
from lit_mm.mistake import Mistake

SPLITS = {"train": 1.0, "val": 0.04, "test": 0.1}  # size beside that of training
MAPS = {"train": 1.0, "val": 0.08, "test": 0.16}  # number of maps beside that of training
PICTURES = {"drawing": "generation", "reading": "reading", "questions": "questions"}  # folder: stream of cuts
PLAIN, BUMPS = "plain", "bumps"
VIDEOS = ("video", "action_video", BUMPS)
TEXT = "text"
FOLDERS = (*PICTURES, "video", "action_video", TEXT, PLAIN, BUMPS)  # seeds depend on their order: add at the end
OFTEN = 0.9  # share of runs in `bumps` that are one step into what blocks the way
FEWEST = 0.5  # share of what was asked for that a cut has to leave


@dataclass(frozen=True)
class Sizes:
    """How much to make for training; see `SPLITS` for the rest.

    Args:
        maps: that are seen in pictures and videos; a fifth as many more are only told of in texts.
        pictures: with captions to draw, as many with captions to read, as many with questions, and as many plain ones.
        videos: without actions.
        episodes: with actions; half as many more of a player who is often blocked.
        frames: of each of both.
        texts: descriptions and walks.
    """

    maps: int
    pictures: int
    videos: int
    episodes: int
    frames: int
    texts: int

    def of(self, folder: str) -> int:
        """How many pictures, videos or texts a folder has for training."""
        blocked = -(-self.episodes // 2)
        number = {"video": self.videos, "action_video": self.episodes, BUMPS: blocked, TEXT: self.texts}
        return number.get(folder, self.pictures)


@dataclass(frozen=True)
class Plan:
    """What decides every byte.

    Args:
        kind: the world.
        sizes: how much to make.
        seed: of maps, places, walks and words.
        night: share of pictures, episodes and texts at night.
        without: cuts, as "stream:concept"; they hold for training alone.
    """

    kind: WorldKind
    sizes: Sizes
    seed: int
    night: float
    without: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, size in asdict(self.sizes).items():
            if size < 1:
                raise Mistake(f"{name}: {size} was given; at least 1 is needed")
        if not 0 <= self.night <= 1:
            raise Mistake(f"night: {self.night:g} is no share; give a number from 0 to 1")
        if self.seed < 0:
            raise Mistake(f"seed: {self.seed} was given; a number from 0 on is needed")


def write_world(folder: Path, kind: WorldKind) -> WorldFile:
    """Write world.json and its templates into a folder, and read them."""
    (folder / "world.json").write_text(json.dumps(kind.description(), indent=1) + "\n", encoding="utf-8")
    for light, looks in kind.templates().items():
        Image.fromarray(np.concatenate(list(looks), axis=1)).save(folder / f"templates_{light}.png")
    return WorldFile.load(folder / "world.json")


def write_data(folder: Path, plan: Plan, workers: int) -> Counts:
    """Write all that a plan asks for.

    Args:
        folder: an empty folder.
        plan: what to make; the files do not depend on anything else.
        workers: processes to work in.

    Raises:
        Mistake: a cut is unknown or leaves too little, or there are no workers.
    """
    parse_cuts(write_world(folder, plan.kind), plan.without)
    jobs: dict[Job, tuple[str, int]] = {}
    for split in SPLITS:
        for name in FOLDERS:
            (folder / name / split).mkdir(parents=True)
        for told in (False, True):
            jobs |= {(write_map, folder, plan, split, told, n): (split, n) for n in range(maps(plan, split, told))}
    made: dict[tuple[str, int], dict[str, Any]] = {}
    for job, result in run_jobs(jobs, folder / "scratch", workers, "worlds"):
        made.setdefault(jobs[job], {}).update(result)
    counts: Counter[str] = Counter()
    for split in SPLITS:
        of_maps = [made[key] for key in sorted(made) if key[0] == split]
        for name in (*PICTURES, PLAIN, TEXT):
            file = folder / name / split / ("worlds.jsonl" if name == TEXT else "metadata.jsonl")
            rows = [row for of_map in of_maps for row in of_map.get(name, [])]
            if name == "questions":
                talks = [entry(f"{split}/{row['file_name']}", row.pop("turns")) for row in rows]
                write_lines(folder / name / f"{split}.jsonl", talks)
            write_lines(file, rows)
            counts[f"{split} {name}"] = len(rows)
        for name in VIDEOS:
            counts[f"{split} {name} frames"] = sum(of_map.get(name, 0) for of_map in of_maps)
    check_enough(plan, counts)
    return dict(counts)


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON Lines."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_map(folder: Path, plan: Plan, split: str, told: bool, number: int) -> dict[str, Any]:
    """Make one map and all that is seen of it, or, where it is only `told` of, its texts.

    Returns:
        By folder: rows of pictures and texts, number of frames.
    """
    rules = WorldFile.load(folder / "world.json")
    cuts = parse_cuts(rules, plan.without if split == "train" else ())
    seed = [plan.seed, list(SPLITS).index(split), int(told), number]
    world = plan.kind.start(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    result: dict[str, Any] = {}
    for place, name in enumerate(FOLDERS):
        if told != (name == TEXT):
            continue
        count = _share(round_up(plan.sizes.of(name) * SPLITS[split]), maps(plan, split, told), number)
        cut = Cut(rules, cuts["generation" if name == PLAIN else PICTURES.get(name, TEXT if told else "video")])
        of = Map(f"{split}-{'told' if told else 'map'}{number:03d}", world.copy(), rules, plan.night)
        target, choices = folder / name / split, [*seed, place]
        if told:
            result[name] = write_texts(of, cut, count, choices)
        elif name == PLAIN:
            result[name] = write_plain(target, rules, of.name, cut, count, choices)
        elif name in PICTURES:
            result[name] = write_pictures(target, of, name, cut, count, choices)
        else:
            table, bumps = name != "video", OFTEN if name == BUMPS else 0
            result[name] = write_episodes(target, of, cut, count, plan.sizes.frames, choices, table, bumps)
    return result


def maps(plan: Plan, split: str, told: bool) -> int:
    """Number of maps of a split that are seen, or only told of."""
    return round_up(plan.sizes.maps * MAPS[split] / (5 if told else 1))


def round_up(size: float) -> int:
    """The nearest whole number, at least 1."""
    return max(1, round(size))


def _share(count: int, parts: int, number: int) -> int:
    """The part of a count that falls to one of several."""
    return count * (number + 1) // parts - count * number // parts


def check_enough(plan: Plan, counts: Mapping[str, int]) -> None:
    """Check that cuts have left at least half of what was asked for.

    Raises:
        Mistake: they have not.
    """
    for name in FOLDERS:
        wanted = plan.sizes.of(name) * (plan.sizes.frames if name in VIDEOS else 1)
        found = counts[f"train {name} frames" if name in VIDEOS else f"train {name}"]
        if found < FEWEST * wanted:
            what = "frames" if name in VIDEOS else "rows"
            raise Mistake(
                f"without: {', '.join(plan.without) or 'nothing'} leaves {found:,} of {wanted:,} {what} in '{name}'; "
                "cut what is seen less often, or ask for more maps"
            )

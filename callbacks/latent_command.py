"""Make the latents of a run before it starts, or a part of them: `python -m callbacks.latent_cache CONFIG`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule

from callbacks.latent_work import LatentFolder, LatentWork
from data_modules.index.configuration import read_command, read_configuration, read_entries
from lit_mm.frozen import freeze
from lit_mm.mistake import Mistake, ends_with_a_sentence
from lit_mm.vision.base import VisualTokenizer

CALLBACK = "callbacks.latent_cache.LatentCache"


def main(args: list[str] | None = None) -> None:
    """Encode the pictures of a configuration, on a GPU where there is one."""
    with ends_with_a_sentence():
        config, settings, number, count = read_command("python -m callbacks.latent_cache", __doc__, args)
        make_part(read_work(config, settings), number, count)


def read_work(config: str, settings: Sequence[str]) -> LatentWork:
    """What there is to encode of a configuration.

    Args:
        config: a YAML file of a run.
        settings: that change it; `--cache.folder=data/latents` and other arguments of `LatentCache`, where the run's
            callbacks do not name one.

    Raises:
        Mistake: it is no such file, has no data or no visual tokenizer of ours, or names no folder.
    """

    def add(parser: ArgumentParser) -> None:
        parser.add_class_arguments(LatentFolder, "cache")
        parser.add_subclass_arguments(LightningModule, "model", required=True, instantiate=False)

    given = [f"--cache.{name}={value}" for name, value in _cache_of(read_entries(config)).items()]
    if not given and not any(setting.startswith("--cache.folder") for setting in settings):
        raise Mistake(f"'{config}' has no LatentCache among trainer.callbacks; name a folder with --cache.folder")
    found = read_configuration(config, [*given, *settings], add, ("data", "model"))
    vision = _vision_of(found.model)
    found.data.image_size, found.data.tokens_per_frame = vision.image_size, vision.num_tokens
    found.data.prepare_data()
    found.data.setup("fit")
    return LatentWork(found.data, vision, found.cache)


def _cache_of(entries: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the callback in the configuration of a run, if it has it."""
    trainer = entries.get("trainer")
    callbacks = trainer.get("callbacks") if isinstance(trainer, dict) else None
    own = [one for one in callbacks or () if isinstance(one, dict) and one.get("class_path") == CALLBACK]
    return own[0].get("init_args", {}) if own else {}


def _vision_of(model: Any) -> VisualTokenizer:
    """The visual tokenizer of a model that is not built."""
    vision = model.init_args.get("vision")
    if vision is None:
        raise Mistake(f"model: {model.class_path} has no visual tokenizer, by which pictures would be encoded")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(VisualTokenizer, "vision", required=True)
    found: VisualTokenizer = parser.instantiate_classes(parser.parse_object({"vision": vision})).vision
    return freeze(found)


def make_part(work: LatentWork, number: int, count: int) -> None:
    """Encode a part of the pictures whose latents are missing.

    Args:
        work: all pictures.
        number: of the part, from 1 on.
        count: of parts. Each has every `count`-th of as many pictures as go into a file.

    Raises:
        BrokenFile: a picture cannot be read.
        Mistake: nothing can be written, or the disk is too small.
    """
    cached = work.sources(("train", "val"))
    mine = [one.keys[np.arange(len(one.keys)) // work.pictures_of_shard % count == number - 1] for one in cached]
    found = [work.look(one, keys) for one, keys in zip(cached, mine, strict=True)]
    work.check_room(cached, found)
    todo = []
    for one, keys, some in zip(cached, mine, found, strict=True):
        there = len(keys) - len(some.missing)
        print(f"data.{one.name}.{one.split}: {there} of {len(keys)} pictures are encoded already")
        todo.append((one, work.shards_of(keys[some.missing])))
    work.encode(todo, torch.device("cuda" if torch.cuda.is_available() else "cpu"), shown=True)
    for one in cached:
        if one.folder.is_writable:
            one.folder.say_what_is_there()

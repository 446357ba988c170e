"""Encode every picture once, before training, and train from the latents."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng

from callbacks.latent_work import Cached, LatentFolder, LatentWork
from data_modules.mixing.together import together
from data_modules.reading.latent_shards import StoredType
from data_modules.reading.latent_store import LatentStore
from data_modules.reading.latent_table import Found, table_file
from lit_mm.mistake import Mistake
from lit_mm.vision.base import VisualTokenizer

LAGS = (1.0, 5.0, 20.0, 40.0)  # a network disk may list files of other nodes late


class LatentCache(Callback):
    """Encodes the pictures of all sources before the first step, and trains and validates from there.

    Pictures are encoded in float32 whatever the run's precision; with `dtype: float32` every loss is the same as
    without the cache. A picture is known by its file (name, size and time of change) and its place in it: what is there
    is used, what is new or has changed is encoded, and what a killed run left undone is made. Each visual tokenizer and
    number format has a folder of its own, so several lie side by side. Samples and predictions still read the pictures.
    With several devices each encodes its part. `python -m callbacks.latent_cache CONFIG` makes the latents, or a part
    of them, without a run.

    Args:
        folder: where the latents are kept, in `<encoder>/<split>/<source>`: a folder on storage that all nodes share,
            or an address that fsspec knows such as `s3://bucket/latents`; `https://` is read only.
        dtype: number format there; the 16-bit ones take half the space and round the latents.
        batch_size: pictures encoded at once, per device.
        shard_size: megabytes of a file; a killed run loses at most one per device.
    """

    def __init__(
        self, folder: str, dtype: StoredType = "float32", batch_size: int = 64, shard_size: float = 512.0
    ) -> None:
        self.latents = LatentFolder(folder, dtype, batch_size, shard_size)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make what is missing, and hand the latents to the data module.

        Raises:
            StaleLatents: a file of latents is gone, or cannot be used.
            NonFiniteLatents: the tokenizer makes NaN or infinity of a picture.
            BrokenFile: a picture cannot be read.
            Mistake: the model has no frozen visual tokenizer, a source cuts its pictures anew whenever they are drawn,
                the disk is too small, or nothing can be written there.
        """
        if stage not in ("fit", "validate"):
            return
        vision = getattr(pl_module, "vision", None)
        if not isinstance(vision, VisualTokenizer):
            raise Mistake(
                f"callbacks.LatentCache needs a model with a frozen visual tokenizer, but {type(pl_module).__name__} "
                "has none; leave the callback out"
            )
        data: Any = trainer.datamodule
        work = LatentWork(data, vision, self.latents)
        with together():
            cached = work.sources(("train", "val") if stage == "fit" else ("val",))
        tables = self._make(trainer, work, cached)
        for one, table in zip(cached, tables, strict=True):
            store = LatentStore(table_file(table, data.loader.folder), work.encoder, data.loader.range_cache)
            data.latents.setdefault(one.split, {})[one.name] = store

    def _make(self, trainer: Trainer, work: LatentWork, cached: Sequence[Cached]) -> list[str]:
        """Names of the tables of all sources, which are there on every node."""
        found: list[Found] = []
        with together():
            if trainer.is_global_zero:
                found = [work.look(one) for one in cached]
                work.check_room(cached, found)
                rank_zero_info(work.say(cached, found))
        missing: list[np.ndarray] = trainer.strategy.broadcast([_spans(one.missing) for one in found])
        if any(map(len, missing)):
            self._encode(trainer, work, cached, missing)
            with together():
                if trainer.is_global_zero:
                    found = [_made(work, one, LAGS if trainer.num_nodes > 1 else ()) for one in cached]
        tables: list[str] = trainer.strategy.broadcast([one.table.stem for one in found])
        with together():
            if trainer.local_rank == 0 and not trainer.is_global_zero:  # a node that shares no cache with the first
                for one, table in zip(cached, tables, strict=True):
                    _see(work, one, table)
        return tables

    def _encode(
        self, trainer: Trainer, work: LatentWork, cached: Sequence[Cached], missing: Sequence[np.ndarray]
    ) -> None:
        mine = [
            (one, work.shards_of(one.keys[_indices(spans)])[trainer.global_rank :: trainer.world_size])
            for one, spans in zip(cached, missing, strict=True)
        ]
        shown = trainer.is_global_zero and trainer.progress_bar_callback is not None
        # The model's weights are drawn after this, and are those of a run without a cache.
        with together(), isolate_rng():
            work.encode(mine, trainer.strategy.root_device, shown)


def _made(work: LatentWork, one: Cached, lags: Sequence[float]) -> Found:
    """What there is once all was made; what is not listed yet is waited for, for so many seconds each time."""
    found = work.look(one)
    for lag in lags:
        if not len(found.missing):
            break
        time.sleep(lag)
        found = work.look(one)
    if len(found.missing):
        raise Mistake(
            f"callbacks.LatentCache: {len(found.missing)} pictures of the source '{one.name}' ({one.split}) changed "
            "while they were encoded, or are other files on another node; start again"
        )
    if one.folder.is_writable:
        one.folder.say_what_is_there()
    return found


def _see(work: LatentWork, one: Cached, table: str) -> None:
    """Have the table on this node too."""
    if table_file(table, work.data.loader.folder).with_suffix(".json").is_file():
        return
    if work.look(one).table.stem != table:
        raise Mistake(
            f"callbacks.LatentCache: files of the source '{one.name}' ({one.split}) have other sizes or times of "
            "change on this node than on the first; copy them with their times, or share the storage"
        )


def _spans(numbers: np.ndarray) -> np.ndarray:
    """(n, 2) first and last of neighbours among ascending numbers: most that are missing are."""
    starts, ends = np.diff(numbers, prepend=-2) != 1, np.diff(numbers, append=-2) != 1
    return np.stack([numbers[starts], numbers[ends]], axis=1)


def _indices(spans: np.ndarray) -> np.ndarray:
    """The numbers again."""
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(first, last + 1) for first, last in spans.tolist())])


if __name__ == "__main__":
    from callbacks.latent_command import main

    main()

"""Encode every picture once, before training, and train from the latents."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from data_modules.dataset import DocumentDataset
from data_modules.mixing.stages import ever_drawn
from data_modules.reading.latent_making import make_shards
from data_modules.reading.latent_store import LatentStore, StoredType, StoreIndex, hash_of_pictures
from data_modules.reading.picture_source import PictureSource
from lit_mm.mistake import Mistake
from lit_mm.vision.base import VisualTokenizer
from lit_mm.vision.latents import FiniteCheck, encode_to_store, stored_channels


@dataclass(frozen=True)
class _Cached:
    """A source's pictures and where their latents are."""

    split: str
    name: str
    pictures: PictureSource
    keys: np.ndarray
    store: LatentStore


class LatentCache(Callback):
    """Encodes the pictures of all sources into `folder` before the first step, and trains and validates from there.

    Pictures are encoded in float32 whatever the run's precision; with `dtype: float32` every loss is the same as
    without the cache. What is already there is used, and what a killed run left undone is made; latents of another
    visual tokenizer, of other pictures or of files that changed since are refused. Samples and predictions still read
    the pictures. With several devices each encodes its part; the folder has to be on storage they share.

    Args:
        folder: where the latents are kept, in `<split>/<source>`.
        dtype: number format on disk; the 16-bit ones take half the space and round the latents.
        batch_size: pictures encoded at once, per device.
        shard_size: megabytes of a file; a killed run loses at most one per device.
    """

    def __init__(
        self, folder: str, dtype: StoredType = "float32", batch_size: int = 64, shard_size: float = 512.0
    ) -> None:
        if batch_size < 1 or shard_size <= 0:
            raise Mistake(
                f"callbacks.LatentCache: batch_size is {batch_size} and shard_size {shard_size}; both are above 0"
            )
        self.folder, self.dtype, self.batch_size, self.shard_size = Path(folder), dtype, batch_size, shard_size

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make or check the stores and hand them to the data module.

        Raises:
            StaleLatents: a store in the folder does not fit.
            NonFiniteLatents: the tokenizer makes NaN or infinity of a picture.
            BrokenFile: a picture cannot be read.
            Mistake: the model has no frozen visual tokenizer, a source cuts its pictures anew whenever they are drawn,
                or the disk is too small.
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
        cached = [
            self._open(trainer, vision, split, name, dataset)
            for split in (("train", "val") if stage == "fit" else ("val",))
            for name, dataset in data.datasets[split].items()
            if dataset.pictures is not None
            and (split == "val" or ever_drawn(name, data.mixture.weights, data.mixture.stages))
        ]
        self._make(trainer, vision, cached)
        for one in cached:
            one.store.open_all()
            data.latents.setdefault(one.split, {})[one.name] = one.store

    def _open(
        self, trainer: Trainer, vision: VisualTokenizer, split: str, name: str, dataset: DocumentDataset
    ) -> _Cached:
        pictures, keys = dataset.pictures, dataset.picture_keys()
        assert pictures is not None
        if pictures.cut_anew:
            raise Mistake(
                f"callbacks.LatentCache encodes every picture once, but source '{name}' cuts another part out of it "
                "each time it is drawn: leave the callback out, or set the source's crop.rule to centre"
            )
        index = StoreIndex(
            tokenizer=vision.fingerprint(),
            image_size=vision.image_size,
            tokens=vision.num_tokens,
            channels=stored_channels(vision),
            dtype=self.dtype,
            pictures=len(keys),
            contents=hash_of_pictures(keys, pictures.identity()),
        )
        shard_size = max(1, int(self.shard_size * 2**20) // index.picture_bytes)
        store = LatentStore(self.folder / split / name, index, shard_size)
        if trainer.is_global_zero:
            store.prepare(keys)
        trainer.strategy.barrier("latent index")
        store.check()
        return _Cached(split, name, pictures, keys, store)

    def _make(self, trainer: Trainer, vision: VisualTokenizer, cached: Sequence[_Cached]) -> None:
        missing = [one.store.missing() for one in cached]
        trainer.strategy.barrier("latent shards")  # nobody writes before everybody has looked
        self._say(cached, missing)
        mine = [shards[trainer.global_rank :: trainer.world_size] for shards in missing]
        if any(missing):
            with isolate_rng():  # the model's weights are drawn after this, and are those of a run without a cache
                self._encode(trainer, vision, cached, mine)
        trainer.strategy.barrier("latents made")

    def _encode(
        self, trainer: Trainer, vision: VisualTokenizer, cached: Sequence[_Cached], mine: Sequence[Sequence[int]]
    ) -> None:
        loader = trainer.datamodule.loader
        shown = trainer.is_global_zero and trainer.progress_bar_callback is not None
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with _Encoder(vision, trainer.strategy.root_device) as encoder, Progress(*columns, disable=not shown) as bar:
            for one, shards in zip(cached, mine, strict=True):
                total = sum(stop - first for first, stop in map(one.store.shard_range, shards))
                task = bar.add_task(f"encoding {one.name} ({one.split})", total=total, visible=total > 0)
                make_shards(
                    one.store,
                    shards,
                    one.pictures,
                    one.keys,
                    encoder,
                    batch_size=self.batch_size,
                    workers=loader.workers,
                    on_error=loader.on_error,
                    advance=partial(bar.advance, task),
                )

    def _say(self, cached: Sequence[_Cached], missing: Sequence[Sequence[int]]) -> None:
        """Say what the cache takes and what of it is still to be made, and see that the disk has room for that."""
        total, still, pictures = 0, 0, 0
        for one, shards in zip(cached, missing, strict=True):
            todo = sum(stop - first for first, stop in map(one.store.shard_range, shards))
            pictures += one.store.index.pictures
            total += one.store.index.pictures * one.store.index.picture_bytes
            still += todo * one.store.index.picture_bytes
        rank_zero_info(
            f"latent cache '{self.folder}': {pictures} pictures in {_size(total)} of {self.dtype}, "
            + (f"{_size(still)} of it still to be made" if still else "all of it there")
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if still > free:
            raise Mistake(
                f"the latent cache '{self.folder}' still needs {_size(still)}, but its disk has {_size(free)} free; "
                "give a folder on another disk, or a 16-bit dtype"
            )


class _Encoder:
    """The tokenizer on its device, in float32, for as long as the cache is made."""

    def __init__(self, vision: VisualTokenizer, device: torch.device) -> None:
        self.vision, self.device = vision, device
        self.check = FiniteCheck(vision.fingerprint())

    def __enter__(self) -> _Encoder:
        self.vision.to(self.device)
        return self

    def __exit__(self, *error: object) -> None:
        self.vision.to("cpu")  # where it was: the strategy moves it together with the model

    def __call__(self, images: Tensor, origins: Sequence[str]) -> Tensor:
        latents = encode_to_store(self.vision, images.to(self.device))
        self.check([latents], origins)
        self.check.flush()  # now: they are copied to the CPU next, which waits for them anyway
        return latents


def _size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"

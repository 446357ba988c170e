"""Filling a store of latents: pictures are read in order by worker processes and encoded in batches, shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data_modules.dataset import BrokenFile
from data_modules.reading.files import OnError
from data_modules.reading.latent_store import LatentStore
from data_modules.reading.picture_source import PictureSource

Encoder = Callable[[Tensor, Sequence[str]], Tensor]  # pictures (n, 3, size, size) and their origins to latents


@dataclass(frozen=True)
class PictureBatch:
    """Pictures read together.

    Attributes:
        keys: of the pictures that could be read.
        images: (n, 3, size, size) uint8, those pictures.
        indices: theirs in the shard.
        broken: path and reason of the others, by their index in the shard.
    """

    keys: list[int]
    images: Tensor
    indices: list[int]
    broken: dict[int, tuple[str, str]]


class ShardPictures(Dataset[PictureBatch]):
    """Pictures of some shards, in batches that stay inside a shard.

    Args:
        source: reads them.
        keys: of all pictures of the store.
        ranges: first picture of each batch, the one after its last, and the first of its shard.
        on_error: a picture that breaks while being read ends the run (`raise`), or is noted (`skip`).
    """

    def __init__(
        self,
        source: PictureSource,
        keys: np.ndarray,
        ranges: Sequence[tuple[int, int, int]],
        on_error: OnError,
    ) -> None:
        self.source, self.keys, self.ranges, self.on_error = source, keys, ranges, on_error

    def __len__(self) -> int:
        return len(self.ranges)

    def __getitem__(self, number: int) -> PictureBatch:
        start, stop, first = self.ranges[number]
        keys, indices = self.keys[start:stop].tolist(), list(range(start - first, stop - first))
        try:
            return PictureBatch(keys, torch.stack(self.source.read(keys)), indices, {})
        except BrokenFile:
            if self.on_error == "raise":
                raise
        return self._one_by_one(keys, indices)

    def _one_by_one(self, keys: list[int], indices: list[int]) -> PictureBatch:
        images: list[Tensor] = []
        whole: list[tuple[int, int]] = []
        broken: dict[int, tuple[str, str]] = {}
        for key, index in zip(keys, indices, strict=True):
            try:
                images += self.source.read([key])
                whole.append((key, index))
            except BrokenFile as error:
                broken[index] = error.path, error.reason
        stacked = torch.stack(images) if images else torch.zeros(0)
        return PictureBatch([key for key, _ in whole], stacked, [index for _, index in whole], broken)


def make_shards(
    store: LatentStore,
    shards: Sequence[int],
    source: PictureSource,
    keys: np.ndarray,
    encode: Encoder,
    *,
    batch_size: int,
    workers: int,
    on_error: OnError,
    advance: Callable[[int], None],
) -> None:
    """Encode the pictures of `shards` and write them.

    Args:
        store: where to.
        shards: which ones; no other process makes the same.
        source: reads the pictures.
        keys: of all pictures of the store.
        encode: the visual tokenizer.
        batch_size: pictures encoded at once.
        workers: processes that read pictures.
        on_error: see `ShardPictures`.
        advance: told of every batch how many pictures it had.

    Raises:
        BrokenFile: a picture cannot be read and `on_error` is `raise`.
    """
    ranges = [
        (start, min(start + batch_size, stop), first)
        for first, stop in map(store.shard_range, shards)
        for start in range(first, stop, batch_size)
    ]
    pictures = ShardPictures(source, keys, ranges, on_error)
    batches = iter(DataLoader(pictures, batch_size=None, num_workers=workers))
    for shard in shards:
        first, stop = store.shard_range(shard)
        latents = torch.zeros(stop - first, store.index.tokens, store.index.channels)
        broken: dict[int, tuple[str, str]] = {}
        for _ in range(first, stop, batch_size):
            batch = next(batches)
            if batch.indices:
                latents[batch.indices] = encode(batch.images, [source.origin(key) for key in batch.keys]).cpu()
            broken |= batch.broken
            advance(len(batch.indices) + len(batch.broken))
        store.write(shard, latents, broken)

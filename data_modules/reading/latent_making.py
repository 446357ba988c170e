"""Making files of latents: pictures are read in order by worker processes and encoded in batches, file by file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data_modules.dataset import BrokenFile
from data_modules.index.shared_folder import SharedFolder
from data_modules.index.storage import UnreachedFile
from data_modules.reading.files import OnError
from data_modules.reading.latent_shards import Encoder, write_shard
from data_modules.reading.picture_source import PictureSource

Encode = Callable[[Tensor, Sequence[str]], Tensor]  # pictures (n, 3, size, size) and their origins to latents


@dataclass(frozen=True)
class PictureBatch:
    """Pictures read together.

    Attributes:
        keys: of the pictures that could be read.
        images: (n, 3, size, size) uint8, those pictures.
        indices: theirs in the file that they will be in.
        broken: path and reason of the others, by their index there.
    """

    keys: list[int]
    images: Tensor
    indices: list[int]
    broken: dict[int, tuple[str, str]]


class ShardPictures(Dataset[PictureBatch]):
    """Pictures in batches, none of which is for two files.

    Args:
        source: reads them.
        shards: keys of the pictures of each file.
        batch_size: pictures in a batch.
        on_error: a picture that breaks while being read ends the run (`raise`), or is noted (`skip`).
    """

    def __init__(self, source: PictureSource, shards: Sequence[np.ndarray], batch_size: int, on_error: OnError) -> None:
        self.source, self.shards, self.batch_size, self.on_error = source, shards, batch_size, on_error
        self.batches = [
            (number, start) for number, keys in enumerate(shards) for start in range(0, len(keys), batch_size)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> PictureBatch:
        shard, start = self.batches[number]
        keys = self.shards[shard][start : start + self.batch_size].tolist()
        indices = list(range(start, start + len(keys)))
        try:
            return PictureBatch(keys, torch.stack(self.source.read(keys)), indices, {})
        except UnreachedFile:  # another time it may be read
            raise
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
            except UnreachedFile:
                raise
            except BrokenFile as error:
                broken[index] = error.path, error.reason
        stacked = torch.stack(images) if images else torch.zeros(0)
        return PictureBatch([key for key, _ in whole], stacked, [index for _, index in whole], broken)


def make_shards(
    folder: SharedFolder,
    encoder: Encoder,
    shards: Sequence[np.ndarray],
    source: PictureSource,
    encode: Encode,
    *,
    batch_size: int,
    workers: int,
    on_error: OnError,
    advance: Callable[[int], None],
) -> None:
    """Encode pictures and write them, file by file.

    Args:
        folder: where to.
        encoder: what they are encoded by.
        shards: keys of the pictures of each file; no other process makes the same.
        source: reads the pictures.
        encode: does it.
        batch_size: pictures encoded at once.
        workers: processes that read pictures.
        on_error: see `ShardPictures`.
        advance: told of every batch how many pictures it had.

    Raises:
        BrokenFile: a picture cannot be read and `on_error` is `raise`, or its storage does not give it.
        Mistake: a file cannot be written.
    """
    # Before they are read: of a file that changes meanwhile, latents are stored as those of what it was.
    identities = [source.identities(keys) for keys in shards]
    pictures = ShardPictures(source, shards, batch_size, on_error)
    batches = iter(DataLoader(pictures, batch_size=None, num_workers=workers))
    for keys, own in zip(shards, identities, strict=True):
        latents = torch.zeros(len(keys), encoder.tokens, encoder.channels)
        broken: dict[int, tuple[str, str]] = {}
        for _ in range(0, len(keys), batch_size):
            batch = next(batches)
            if batch.indices:
                latents[batch.indices] = encode(batch.images, [source.origin(key) for key in batch.keys]).cpu()
            broken |= batch.broken
            advance(len(batch.indices) + len(batch.broken))
        write_shard(folder, encoder, own, latents, broken)

"""Latents on disk: made once of every picture of a source, read by memory map, refused when they are stale.

A store is a folder:

    index.json                what the latents were made of and by; written first
    pictures.npy              (pictures,) int64, the keys of the pictures in the order they are stored
    shard-00000.safetensors   `latents` (n, tokens, channels) of the first pictures, and so on

Every file appears whole or not at all (it is renamed into place), so a run that is killed leaves shards that a later
run of the same index goes on from, and never one that is cut.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.reading.picture_source import PictureReader
from lit_mm.mistake import Mistake
from lit_mm.tensor_files import save_tensors

LAYOUT = 1  # of a store's files; a new number makes older stores unreadable
MAX_OPEN = 64  # shards kept open by a process

StoredType = Literal["float32", "float16", "bfloat16"]


class StaleLatents(Mistake):
    """A store holds latents of another tokenizer, of other pictures, or in another number format."""


@dataclass(frozen=True)
class StoreIndex:
    """What stored latents depend on: equal indices, equal latents.

    Args:
        tokenizer: fingerprint of the visual tokenizer.
        image_size: side of the pictures in pixels.
        tokens: of a picture.
        channels: of a stored token.
        dtype: number format on disk.
        pictures: how many.
        contents: hash of the pictures' files and keys.
        layout: of the store's files.
    """

    tokenizer: str
    image_size: int
    tokens: int
    channels: int
    dtype: StoredType
    pictures: int
    contents: str
    layout: int = LAYOUT

    @property
    def picture_bytes(self) -> int:
        """Bytes of one picture's latents."""
        return self.tokens * self.channels * getattr(torch, self.dtype).itemsize

    def difference(self, found: StoreIndex) -> tuple[str, str] | None:
        """What a store with the index `found` holds and what is wanted instead, in words; None if it is the same."""
        if found.layout != self.layout:
            return f"files of layout {found.layout}", f"layout {self.layout}"
        if found.tokenizer != self.tokenizer:
            return f"latents of the visual tokenizer '{found.tokenizer}'", f"those of '{self.tokenizer}'"
        sizes = [(i.image_size, i.tokens, i.channels) for i in (found, self)]
        if sizes[0] != sizes[1]:
            words = ["{}-pixel pictures in {} tokens of {} channels".format(*s) for s in sizes]
            return words[0], words[1]
        if found.pictures != self.pictures:
            return f"latents of {found.pictures} pictures", f"those of the {self.pictures} that the source now shows"
        if found.contents != self.contents:
            return "latents of other pictures", "those of the files as they now are (name, size and time of change)"
        if found.dtype != self.dtype:
            return f"{found.dtype} numbers", f"{self.dtype} ones (or dtype: {found.dtype})"
        return None


def hash_of_pictures(keys: np.ndarray, identity: str) -> str:
    """16 hex digits over which pictures there are and which files they are from."""
    return hashlib.sha256(identity.encode() + np.ascontiguousarray(keys, np.int64).tobytes()).hexdigest()[:16]


class LatentStore(PictureReader):
    """One folder of latents.

    Args:
        folder: it need not exist yet.
        index: what it has to hold.
        shard_size: pictures in a shard; of a store that exists, its own.
    """

    def __init__(self, folder: Path, index: StoreIndex, shard_size: int) -> None:
        self.folder, self.index = folder, index
        self.shard_size = shard_size
        self._keys: np.ndarray | None = None
        self._open: OrderedDict[int, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        # Memory maps are not sent to workers: each opens its own.
        return {**self.__dict__, "_keys": None, "_open": OrderedDict()}

    # ---- making

    def prepare(self, keys: np.ndarray) -> None:
        """Write the index if there is none yet.

        Raises:
            StaleLatents: there is one, and it says something else.
        """
        if (self.folder / "index.json").is_file():
            self.check()
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        _appear(self.folder / "pictures.npy", lambda f: np.save(f, keys.astype(np.int64)))
        text = json.dumps({**asdict(self.index), "shard_size": self.shard_size}, indent=2)
        _appear(self.folder / "index.json", lambda f: f.write_text(text + "\n"))

    def check(self) -> None:
        """Compare the folder's index with the one wanted, and take over its shard size.

        Raises:
            StaleLatents: they differ.
        """
        file = self.folder / "index.json"
        if not file.is_file():
            raise StaleLatents(f"the latent cache '{self.folder}' is not there; is it on storage that all nodes share?")
        try:
            found = json.loads(file.read_text())
            shard_size = int(found.pop("shard_size"))
            difference = self.index.difference(StoreIndex(**found))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StaleLatents(f"'{file}' is not the index of a latent cache ({error}); {_ADVICE}") from error
        if difference:
            raise StaleLatents(
                f"the latent cache '{self.folder}' holds {difference[0]}, but this run needs {difference[1]}; {_ADVICE}"
            )
        self.shard_size = shard_size

    @property
    def shards(self) -> int:
        """How many there have to be."""
        return -(-self.index.pictures // self.shard_size)

    def shard_file(self, shard: int) -> Path:
        """Path of a shard."""
        return self.folder / f"shard-{shard:05d}.safetensors"

    def shard_range(self, shard: int) -> tuple[int, int]:
        """First picture of a shard, and the one after its last."""
        return shard * self.shard_size, min((shard + 1) * self.shard_size, self.index.pictures)

    def missing(self) -> list[int]:
        """Shards that are still to be made."""
        return [shard for shard in range(self.shards) if not self.shard_file(shard).exists()]

    def write(self, shard: int, latents: Tensor, broken: Mapping[int, tuple[str, str]]) -> None:
        """Store one shard.

        Args:
            shard: its number.
            latents: (n, tokens, channels) of the pictures of `shard_range`; of any value where they are broken.
            broken: path and reason of pictures that could not be read, by their index in the shard.
        """
        tensors = {"latents": latents.to("cpu", getattr(torch, self.index.dtype)).contiguous()}
        metadata = {"contents": self.index.contents, "tokenizer": self.index.tokenizer, "broken": json.dumps(broken)}
        _appear(self.shard_file(shard), lambda f: save_tensors(tensors, f, metadata))

    # ---- reading

    def open_all(self) -> None:
        """See that every shard is there, whole and this store's; nothing but headers is read.

        Raises:
            StaleLatents: one is not.
        """
        for shard in range(self.shards):
            self._shard(shard)

    def read(self, keys: Sequence[int]) -> list[Tensor]:
        """Latents (tokens, channels) of the pictures with these keys, in the number format of the disk.

        Raises:
            BrokenFile: a picture could not be read when the store was made.
            KeyError: the store has no such picture.
        """
        if self._keys is None:
            self._keys = np.load(self.folder / "pictures.npy", mmap_mode="r")
        indices = np.searchsorted(self._keys, keys)
        found = []
        for key, index in zip(keys, indices.tolist(), strict=True):
            if index >= len(self._keys) or self._keys[index] != key:
                raise KeyError(f"the latent cache '{self.folder}' has no picture {key}")
            rows, broken = self._shard(index // self.shard_size)
            row = index % self.shard_size
            if str(row) in broken:
                raise BrokenFile(*broken[str(row)])
            found.append(rows[row])
        return found

    def _shard(self, shard: int) -> tuple[Any, dict[str, list[str]]]:
        if shard not in self._open:
            while len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)
            self._open[shard] = self._open_shard(shard)
        self._open.move_to_end(shard)
        return self._open[shard]

    def _open_shard(self, shard: int) -> tuple[Any, dict[str, list[str]]]:
        file = self.shard_file(shard)
        try:
            opened = safe_open(file, framework="pt")
            rows, metadata = opened.get_slice("latents"), opened.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise StaleLatents(f"'{file}' of the latent cache cannot be read ({error}); {_AGAIN}") from error
        first, stop = self.shard_range(shard)
        shape = [stop - first, self.index.tokens, self.index.channels]
        if rows.get_shape() != shape:
            raise StaleLatents(f"'{file}' holds latents {rows.get_shape()} but {shape} are expected; {_AGAIN}")
        if (metadata.get("contents"), metadata.get("tokenizer")) != (self.index.contents, self.index.tokenizer):
            raise StaleLatents(f"'{file}' was made for another latent cache than the one it lies in; {_AGAIN}")
        return rows, json.loads(metadata.get("broken", "{}"))


_ADVICE = "give another folder, or delete this one to have it made again"
_AGAIN = "delete it to have it made again"


def _appear(file: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under another name, then rename it: whoever looks sees all of it or nothing."""
    beside = file.with_name(f".{os.getpid()}-{file.name}")  # same ending: numpy would add its own to another
    try:
        write(beside)
        with beside.open("rb+") as written:
            os.fsync(written.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)

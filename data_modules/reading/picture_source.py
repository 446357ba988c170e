"""The pictures that a source shows: decoded whenever a document is read, or all of them once, to be cached."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

READING = 2  # how pictures are brought to their size; a new number makes stored latents stale


class PictureReader(ABC):
    """Gives the pictures that documents ask for by key, as pixels or as latents made of them before."""

    @abstractmethod
    def read(self, keys: Sequence[int]) -> list[Tensor]:
        """One picture per key: (3, size, size) uint8 pixels, or (tokens, channels) latents.

        Raises:
            BrokenFile: a file behind one of them cannot be read.
        """

    def ahead(self, keys: Sequence[int]) -> None:
        """Have what will be read soon on its way, where that takes time; by default nothing is."""
        return None


class PictureSource(PictureReader):
    """Pictures as files have them.

    A key is an int64 that means one picture to the source; keys ascend in the order in which files are best read.

    Attributes:
        cut_anew: whether `read_drawn` shows another part of a picture for another seed.
    """

    cut_anew: bool = False

    def read_drawn(self, keys: Sequence[int], seed: int) -> list[Tensor]:
        """As `read`, for one draw of a document; its seed chooses whatever is random about the pictures."""
        return self.read(keys)

    @abstractmethod
    def origin(self, key: int) -> str:
        """Where a picture is from, for messages: its file, and in a video the frame's number."""

    @abstractmethod
    def identity(self) -> str:
        """A hash that changes when a file does (its name, size or time of change): equal hashes, equal pictures."""


def identity_of_files(files: Iterable[Path], *more: object) -> str:
    """Hash over names (relative to the folder they share), sizes and times of change of `files`, and of `more`."""
    paths = [os.path.abspath(f) for f in files]
    shared = os.path.commonpath([os.path.dirname(p) for p in paths]) if paths else ""
    digest = hashlib.sha256(repr((READING, more)).encode())
    for path in paths:
        try:
            stat = os.stat(path)
            state = f"{stat.st_size}\0{stat.st_mtime_ns}"
        except OSError:  # whoever reads it will say so
            state = "missing"
        digest.update(f"{os.path.relpath(path, shared)}\0{state}\n".encode())
    return digest.hexdigest()[:16]

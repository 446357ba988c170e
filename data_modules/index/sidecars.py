"""One index for each input file, kept in a cache under a name that is made of all it depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.dataset import BrokenFile
from data_modules.index.array_file import ArrayFile, write_arrays
from data_modules.index.keys import key_of_texts
from data_modules.index.storage import FilePart, InputFile

# Reads a file through: arrays and what is said beside them.
Indexer = Callable[[InputFile], tuple[dict[str, np.ndarray], dict[str, Any]]]


@dataclass(frozen=True)
class Sidecar:
    """The index of one file.

    Args:
        file: what is indexed, or a part of it, as it is now.
        name: hash of the file's path, size and time of change, and of all that the index depends on besides.
        cache: folder of all indexes.
    """

    file: InputFile
    name: str
    cache: Path

    @classmethod
    def of(cls, file: InputFile, depends_on: str, cache: Path) -> Sidecar:
        """The index of `file` made by a reader and with settings that `depends_on` names."""
        part = [str(at) for at in file.part if isinstance(file, FilePart)]
        return cls(file, key_of_texts([file.path, str(file.size), file.changed, *part, depends_on]), cache)

    @property
    def work(self) -> int:
        """Bytes that are read to make it."""
        first, stop = self.file.part
        return stop - first

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.cache / "files" / self.name[:2] / f"{self.name}.safetensors"

    def open(self) -> ArrayFile:
        """Map it.

        Raises:
            OSError: it was not made yet.
            ValueError: it is not whole.
        """
        return ArrayFile(self.path)

    def is_there(self) -> bool:
        """Whether it was made, and is whole."""
        try:
            self.open()
        except (OSError, ValueError):
            return False
        return True

    def make(self, indexer: Indexer) -> None:
        """Read the file, and write its index.

        Raises:
            BrokenFile: the file cannot be read at all, or changes while it is.
            Mistake: the index cannot be written.
        """
        try:
            arrays, said = indexer(self.file)
        except OSError as error:
            raise BrokenFile(self.file.path, error) from error
        write_arrays(self.path, arrays, {**said, "path": self.file.path})


@dataclass(frozen=True)
class Indexing:
    """The indexes that a source needs, and what makes them.

    Args:
        sidecars: one for each of its files, in order.
        indexer: reads a file; it can be sent to other processes.
    """

    sidecars: Sequence[Sidecar]
    indexer: Indexer

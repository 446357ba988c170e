"""What a picture is, as a number of 64 bits: equal numbers, equal pictures, wherever their source lies and grows.

Two of 10^8 pictures are taken for one with a probability of 0.0003.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from data_modules.index.storage import is_remote
from data_modules.reading.walking import as_stored

READING = 2  # how pictures are brought to their size; a new number makes stored latents stale
_STEP, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def number_of(*parts: object) -> int:
    """64 bits over all parts and their order; names of files may hold bytes that are no UTF-8."""
    text = "".join(f"{len(part)}:{part}" for part in map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "little")


def numbers_within(whole: int | np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n,) uint64 of parts of something, by its own number and their places: those of different places differ.

    Args:
        whole: number of the whole, or (n,) uint64.
        places: (n,) integers from 0 on.
    """
    z = np.asarray(whole, np.uint64) + (places.astype(np.uint64) + np.uint64(1)) * _STEP  # SplitMix64
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


def by_group(groups: np.ndarray, numbers: Callable[[int, slice], np.ndarray]) -> np.ndarray:
    """(n,) uint64 that are found group by group.

    Args:
        groups: (n,) integers, which group each belongs to.
        numbers: (m,) uint64 of neighbours of one group: its number, and where they stand.
    """
    found = np.empty(len(groups), np.uint64)
    cuts = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(groups)]
    for start, stop in pairwise(cuts):
        if stop > start:
            found[start:stop] = numbers(int(groups[start]), slice(start, stop))
    return found


def root_of(path: str) -> str:
    """The folder from which files of a source are named, so that it may grow, and be moved as a whole.

    Args:
        path: of the source as a user writes it: a file, a folder, a pattern or a URL.
    """
    if is_remote(path):
        before, magic, _ = re.split(r"([*?\[{]|$)", path, maxsplit=1)
        last = before.rpartition("/")[2]
        return before.rpartition("/")[0] if magic or "." in last else before.rstrip("/")
    folder = Path(os.path.abspath(Path(path.partition("#")[0]).expanduser()))
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return str(folder)


class Identifier:
    """Numbers of files and of what is in them, for one way of bringing pictures to their size.

    Args:
        root: see `root_of`.
        settings: all that pictures depend on besides their files.
    """

    def __init__(self, root: str, *settings: object) -> None:
        self._root, self._number = root, partial(number_of, READING, *settings)

    def file(self, path: str, size: int, changed: int | str, *part: object) -> int:
        """Of a file, or a part of one, as it was.

        Args:
            path: a local path, or a URL.
            size: in bytes.
            changed: time of its last change, or what its storage tells instead.
            part: which part.
        """
        whole = path if is_remote(path) else os.path.abspath(path)
        return self._number(whole.removeprefix(self._root), size, changed, *part)

    def present(self, path: str) -> int:
        """Of a local file as it is now; whoever reads one that is not there will say so."""
        try:
            stat = os.stat(path)
        except (OSError, ValueError):
            try:
                stat = os.stat(as_stored(Path(path)))
            except (OSError, ValueError):
                return self.file(path, 0, "missing")
        return self.file(path, stat.st_size, stat.st_mtime_ns)

    def text(self, *parts: object) -> int:
        """Of a picture that is a text, or of what is told by texts alone."""
        return self._number(*parts)

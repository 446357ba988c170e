"""All indexes of a source as one: documents are numbered through its files, their lengths are one mapped array."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_modules.index.array_file import ArrayFile, appear, mapped_array, stored_array, write_arrays
from data_modules.index.keys import key_of_texts
from data_modules.index.open_indexes import OpenIndexes
from data_modules.index.sidecars import Sidecar
from data_modules.reading.code import code_of
from data_modules.reading.files import listed
from data_modules.reading.findings import note_cache

COUNTED = ("captioned", "bare", "lost", "cut", "guessed", "unkept", "unknown")


@dataclass(frozen=True)
class Totals:
    """Samples of all files of a source; see `index_pairs`.

    Args:
        report: path of the first file that has lost some, and why.
        endings: of members, by number.
    """

    captioned: int
    bare: int
    lost: int
    cut: int
    guessed: int
    unkept: int
    unknown: int
    report: tuple[str, str] | None
    endings: dict[str, int]

    @property
    def members(self) -> str:
        """What the files hold, in words."""
        return listed([f"{n} .{e}" for e, n in self.endings.items()], "and") if self.endings else "there is nothing"


class SourceView:
    """Documents of a source whose files are all indexed.

    Args:
        sidecars: of its files, in order.
        with_bare: whether samples without a caption are documents too.
        cache: folder of the view's own files.

    Attributes:
        totals: samples of all files.
        lengths_file: (captions, documents) uint16 tokens of the captions, as .npy.
        longest: largest of them.

    Raises:
        OSError, ValueError: it was not made yet, or is not whole.
    """

    def __init__(self, sidecars: Sequence[Sidecar], with_bare: bool, cache: Path) -> None:
        self.sidecars = sidecars
        self.file = _file(sidecars, with_bare, cache)
        self.lengths_file = self.file.with_suffix(".npy")
        self._indexes = OpenIndexes(sidecars, self.file)
        stored = ArrayFile(self.file)
        if stored_array(self.lengths_file).shape[-1] != stored["starts"][-1]:
            raise ValueError(f"'{self.lengths_file}' is of another view")
        note_cache(self.file)
        self.starts = stored["starts"].astype(np.int64)
        self.longest = int(stored.metadata["longest"])
        totals = stored.metadata["totals"]
        self.totals = Totals(**{**totals, "report": totals["report"] and tuple(totals["report"])})

    def __len__(self) -> int:
        return int(self.starts[-1])

    def locate(self, document: int) -> tuple[int, int]:
        """Number of the file that a document is in, and its row in that file's index."""
        number = int(self.starts.searchsorted(document, side="right")) - 1
        return number, document - int(self.starts[number])

    def index(self, number: int) -> ArrayFile:
        """The mapped index of a file."""
        return self._indexes[number]


def make_view(sidecars: Sequence[Sidecar], with_bare: bool, cache: Path) -> None:
    """Write what a `SourceView` opens.

    Args:
        sidecars: of all files of a source, in order; all of them are there.
        with_bare: whether samples without a caption are documents too.
        cache: folder of the view's own files.

    Raises:
        Mistake: the disk is full, or may not be written to.
    """
    file = _file(sidecars, with_bare, cache)
    sizes, counts = [], dict.fromkeys(COUNTED, 0)
    report, endings, longest = None, Counter[str](), 0
    for sidecar in sidecars:
        found = sidecar.open().metadata
        sizes.append(found["captioned"] + (found["bare"] if with_bare else 0))
        counts = {name: counts[name] + found[name] for name in COUNTED}
        if report is None and found["lost"]:
            report = sidecar.file.path, found["reports"][0]
        endings.update(found["endings"])
    starts = np.cumsum([0, *sizes], dtype=np.uint64)

    def concatenate(beside: Path) -> None:
        nonlocal longest
        captions = sidecars[0].open()["tokens"].shape[1]
        lengths = mapped_array(beside, np.uint16, (captions, int(starts[-1])))
        for sidecar, start, size in zip(sidecars, starts.tolist(), sizes, strict=False):
            lengths[:, start : start + size] = sidecar.open()["tokens"][:size].T
        longest = int(lengths.max(initial=0))
        lengths.flush()

    appear(file.with_suffix(".npy"), concatenate)
    totals = {**counts, "report": report, "endings": dict(endings)}
    write_arrays(file, {"starts": starts}, {"longest": longest, "totals": totals})


def _file(sidecars: Sequence[Sidecar], with_bare: bool, cache: Path) -> Path:
    name = key_of_texts([f"pairs {code_of(make_view)} {with_bare}", *(sidecar.name for sidecar in sidecars)])
    return cache / "views" / name[:2] / f"{name}.safetensors"

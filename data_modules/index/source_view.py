"""All indexes of a source as one: documents are numbered through its files, their lengths are one mapped array."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.index.array_file import ArrayFile, appear, write_arrays
from data_modules.index.keys import key_of_texts
from data_modules.index.sidecars import Sidecar
from data_modules.reading.files import listed

LAYOUT = 1  # of a view's files; a new number makes older ones stale
MAX_OPEN = 256  # indexes that a process keeps mapped
COUNTED = ("captioned", "bare", "lost", "cut", "guessed")


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
        cache: folder of the view's own files, which are made unless they are there.

    Attributes:
        totals: samples of all files.
        lengths_file: (documents,) uint16 tokens of the captions, as .npy.
        longest: largest of them.
    """

    def __init__(self, sidecars: Sequence[Sidecar], with_bare: bool, cache: Path) -> None:
        self.sidecars = list(sidecars)
        name = key_of_texts([f"view {LAYOUT} {with_bare}", *(s.name for s in sidecars)])
        folder = cache / "views" / name[:2]
        self.lengths_file = folder / f"{name}.npy"
        self._open: OrderedDict[int, ArrayFile] = OrderedDict()
        try:
            stored = ArrayFile(folder / f"{name}.safetensors")
        except (OSError, ValueError):
            self._make(folder / f"{name}.safetensors", with_bare)
            stored = ArrayFile(folder / f"{name}.safetensors")
        self.starts = stored["starts"].astype(np.int64)
        self.longest = int(stored.metadata["longest"])
        totals = stored.metadata["totals"]
        self.totals = Totals(**{**totals, "report": totals["report"] and tuple(totals["report"])})

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def _make(self, file: Path, with_bare: bool) -> None:
        sizes, counts = [], dict.fromkeys(COUNTED, 0)
        report, endings, longest = None, dict[str, int](), 0
        for sidecar in self.sidecars:
            found = sidecar.open().metadata
            sizes.append(found["captioned"] + (found["bare"] if with_bare else 0))
            counts = {name: counts[name] + found[name] for name in COUNTED}
            if report is None and found["lost"]:
                report = sidecar.file.path, found["reports"][0]
            for ending, number in found["endings"].items():
                endings[ending] = endings.get(ending, 0) + number
        starts = np.cumsum([0, *sizes], dtype=np.uint64)

        def concatenate(beside: Path) -> None:
            nonlocal longest
            lengths = np.lib.format.open_memmap(beside, "w+", np.uint16, (int(starts[-1]),))
            for sidecar, start, size in zip(self.sidecars, starts.tolist(), sizes, strict=False):
                lengths[start : start + size] = sidecar.open()["tokens"][:size]
            longest = int(lengths.max(initial=0))
            lengths.flush()

        appear(self.lengths_file, concatenate)
        totals = {**counts, "report": report, "endings": endings}
        write_arrays(file, {"starts": starts}, {"longest": longest, "totals": totals})

    def locate(self, document: int) -> tuple[int, int]:
        """Number of the file that a document is in, and its row in that file's index."""
        number = int(np.searchsorted(self.starts, document, side="right")) - 1
        return number, document - int(self.starts[number])

    def index(self, number: int) -> ArrayFile:
        """The mapped index of a file."""
        if number not in self._open:
            while len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)
            self._open[number] = self.sidecars[number].open()
        self._open.move_to_end(number)
        return self._open[number]

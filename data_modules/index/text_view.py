"""All indexes of a source of texts as one: windows of texts are numbered through all files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data_modules.index.array_file import ArrayFile, appear, mapped_array, stored_array, write_arrays
from data_modules.index.keys import key_of_texts
from data_modules.index.open_indexes import OpenIndexes
from data_modules.index.sidecars import Sidecar
from data_modules.reading.code import code_of
from data_modules.reading.findings import note_cache

STRIDE = 64  # windows from one whose place is stored to the next; places between them are sums of lengths


@dataclass(frozen=True)
class TextTotals:
    """Of all files of a source; see `index_text`.

    Args:
        lost: rows that cannot be read; where nobody knows how many, as many as in as many bytes of the other files.
        report: path of the first file that has lost some, and why.
    """

    texts: int
    tokens: int
    bytes: int
    rows: int
    lost: int
    report: tuple[str, str] | None


class TextView:
    """Windows of the texts of a source whose files are all indexed.

    Args:
        sidecars: of the parts of its files, in order.
        window: most tokens of a window.
        cache: folder of the view's own files.

    Attributes:
        totals: of all files.
        lengths_file: (windows,) uint16 or uint32 tokens of each, as .npy.
        longest: largest of them.

    Raises:
        OSError, ValueError: it was not made yet, or is not whole.
    """

    def __init__(self, sidecars: Sequence[Sidecar], window: int, cache: Path) -> None:
        self.file = _file(sidecars, window, cache)
        self.lengths_file = self.file.with_suffix(".npy")
        self.indexes = OpenIndexes(sidecars, self.file)
        self._map()
        if len(self._lengths) != self._stored.metadata["windows"]:
            raise ValueError(f"'{self.lengths_file}' is of another view")
        self.longest = int(self._stored.metadata["longest"])
        note_cache(self.file)
        totals = self._stored.metadata["totals"]
        self.totals = TextTotals(**{**totals, "report": totals["report"] and tuple(totals["report"])})

    def _map(self) -> None:
        self._lengths = stored_array(self.lengths_file)
        self._stored = ArrayFile(self.file)
        self._files, self._places = self._stored["files"], self._stored["places"]

    def __len__(self) -> int:
        return len(self._lengths)

    def __getstate__(self) -> dict[str, object]:
        mapped = ("_lengths", "_stored", "_files", "_places")
        return {name: value for name, value in self.__dict__.items() if name not in mapped}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._map()

    def ids(self, window: int) -> np.ndarray:
        """(tokens,) of a window, not copied."""
        block = window // STRIDE
        place = int(self._places[block]) + int(self._lengths[block * STRIDE : window].sum(dtype=np.int64))
        number = int(np.searchsorted(self._files, place, side="right")) - 1
        start = place - int(self._files[number])
        return self.indexes[number]["ids"][start : start + int(self._lengths[window])]


def windows_of(lengths: np.ndarray, window: int) -> np.ndarray:
    """Lengths of the pieces that texts are cut into: as few as can be, and as even.

    Args:
        lengths: (texts,) tokens of each text.
        window: most tokens of a piece.

    Returns:
        (pieces,) int64, of all texts in their order.
    """
    lengths = lengths.astype(np.int64)
    counts = -(-lengths // window)
    whole, count = np.repeat(lengths, counts), np.repeat(counts, counts)
    number = np.arange(len(whole)) - np.repeat(np.cumsum(counts) - counts, counts)
    return whole * (number + 1) // count - whole * number // count


def make_text_view(sidecars: Sequence[Sidecar], window: int, cache: Path) -> None:
    """Write what a `TextView` opens.

    Args:
        sidecars: of all parts of a source's files, in order; all of them are there.
        window: most tokens of a window.
        cache: folder of the view's own files.

    Raises:
        Mistake: the disk is full, or may not be written to.
    """
    file = _file(sidecars, window, cache)
    sizes, counts, said = [0], [], []
    for sidecar in sidecars:  # one after the other, as a process may not map any number of files
        index = sidecar.open()
        sizes.append(len(index["ids"]))
        counts.append(int((-(-index["lengths"].astype(np.int64) // window)).sum()))
        said.append(index.metadata)
    files = np.cumsum(sizes, dtype=np.uint64)
    places = np.zeros(-(-sum(counts) // STRIDE), np.uint64)
    longest = 0

    def concatenate(beside: Path) -> None:
        nonlocal longest
        kind = np.uint16 if window < 1 << 16 else np.uint32
        lengths = mapped_array(beside, kind, (sum(counts),))
        at = 0
        for sidecar, first in zip(sidecars, files.tolist(), strict=False):
            pieces = windows_of(sidecar.open()["lengths"], window)
            lengths[at : at + len(pieces)] = pieces
            marked = first + (np.cumsum(pieces) - pieces)[-at % STRIDE :: STRIDE]
            begin = -(-at // STRIDE)
            places[begin : begin + len(marked)] = marked
            longest = max(longest, int(pieces.max(initial=0)))
            at += len(pieces)
        lengths.flush()

    appear(file.with_suffix(".npy"), concatenate)
    totals = asdict(_totals(sidecars, said))
    write_arrays(
        file, {"files": files, "places": places}, {"windows": sum(counts), "longest": longest, "totals": totals}
    )


def _totals(sidecars: Sequence[Sidecar], said: Sequence[dict]) -> TextTotals:
    sums = {name: sum(one[name] for one in said) for name in ("texts", "tokens", "bytes", "rows", "lost", "unread")}
    read = sum(sidecar.work for sidecar in sidecars) - sums["unread"]
    unread = sums.pop("unread")
    guessed = round(sums["rows"] * unread / read) if read else 0
    # Of a file that cannot be read at all one row is counted already.
    sums["lost"] += max(0, guessed - sum(one["unread"] > 0 for one in said))
    return TextTotals(**sums, report=next(_reports(sidecars, said), None))


def _reports(sidecars: Sequence[Sidecar], said: Sequence[dict]) -> Iterator[tuple[str, str]]:
    before: dict[str, int] = {}
    for sidecar, one in zip(sidecars, said, strict=True):
        path = sidecar.file.path
        for where, row, reason in one["reports"]:
            yield path, f"{where} {before.get(path, 0) + row} {reason}" if where else reason
        before[path] = before.get(path, 0) + one["rows"]


def _file(sidecars: Sequence[Sidecar], window: int, cache: Path) -> Path:
    name = key_of_texts([f"texts {code_of(make_text_view)} {window}", *(sidecar.name for sidecar in sidecars)])
    return cache / "views" / name[:2] / f"{name}.safetensors"

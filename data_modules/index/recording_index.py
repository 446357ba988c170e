"""Indexes of recordings, some of them in each: the time stamps of their frames, and the columns beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np

from data_modules.dataset import BrokenFile
from data_modules.index.array_file import ArrayFile
from data_modules.index.sidecars import Indexing, Sidecar
from data_modules.index.storage import InputFile, UnreachedFile
from data_modules.reading.code import code_of, identity
from data_modules.reading.files import Stamps, total_size
from data_modules.reading.recording_columns import Columns, read_columns
from data_modules.reading.recordings import Recording, VideoFile, recording_of

Item = tuple[Stamps, str]  # of a recording: its files, and its `place`
TOGETHER = 64  # recordings of an index, on average


@dataclass(frozen=True)
class RecordingGroup(InputFile):
    """Recordings that are indexed together.

    Args:
        items: theirs, in order.
    """

    items: tuple[Item, ...]


def groups_of(items: Sequence[Item]) -> Iterator[RecordingGroup]:
    """Recordings in groups of neighbours.

    What a recording is called decides whether a group ends with it, so where others are added or taken away, all groups
    but theirs stay the same.

    Args:
        items: all of a source, in order.
    """
    begin = 0
    for number, (_, place) in enumerate(items):
        digest = hashlib.sha256(place.encode()).digest()
        if int.from_bytes(digest[:8], "big") % TOGETHER == 0 or number + 1 == len(items):
            some = tuple(items[begin : number + 1])
            files = tuple(dict.fromkeys(stamp for stamps, _ in some for stamp in stamps))
            yield RecordingGroup(recording_of(some[0][1]).name, total_size(files), identity(some), some)
            begin = number + 1


def recording_sidecars(
    items: Sequence[Item], recordings: Sequence[Recording], columns: Columns, cache: Path
) -> Indexing:
    """The indexes of recordings, and what makes them.

    Args:
        items: the recordings, as they were when they were looked up.
        recordings: themselves.
        columns: that are read besides time stamps.
        cache: folder of all indexes.
    """
    # Which classes they are is found in a table, where the code that reads them cannot be followed.
    code = sorted({code_of(kind) for kind in {VideoFile, *map(type, recordings)}})
    depends_on = f"recordings {code_of(index_recording_group)} {code} {columns}"
    sidecars = [Sidecar.of(group, depends_on, cache) for group in groups_of(items)]
    return Indexing(sidecars, partial(index_recording_group, columns=columns))


def index_recording_group(file: InputFile, columns: Columns) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the headers of recordings, and their columns.

    Args:
        file: the group.
        columns: that are read.

    Returns:
        Arrays, one recording after the other; of broken ones there is nothing:
            frames, keys: (recordings,) uint64, how many frames and keyframes each has.
            pts: (frames,) and keyframes: (keyframes,), int64 as uint64, see `VideoIndex`.
            `column …`: (frames,) float64 as uint64, of each column of numbers.
        Of each recording its `path`, `place`, `time_base` and why it is `broken`, and its columns of texts.

    Raises:
        UnreachedFile: a storage fails, which says nothing of its files.
    """
    rows = [_row(recording_of(place), place, columns) for _, place in cast(RecordingGroup, file).items]
    arrays = {"frames": np.array([len(row["pts"]) for row in rows], np.uint64)}
    arrays["keys"] = np.array([len(row["keyframes"]) for row in rows], np.uint64)
    arrays |= {name: _joined([row[name] for row in rows], np.int64) for name in ("pts", "keyframes")}
    arrays |= {f"column {name}": _joined([row[name] for row in rows], np.float64) for name in columns.numbers}
    said = ("path", "place", "time_base", "broken", *columns.texts)
    return arrays, {"rows": [{name: row[name] for name in said} for row in rows], "numbers": list(columns.numbers)}


def _row(recording: Recording, place: str, columns: Columns) -> dict[str, Any]:
    row: dict[str, Any] = {"path": recording.name, "place": place, "broken": None}
    row |= {"pts": [], "keyframes": [], "time_base": 0.0}
    row |= {name: [] for name in (*columns.numbers, *columns.texts)}
    try:
        index = recording.index()
        found: Mapping[str, Any] = {}
        if columns.numbers or columns.texts:
            found = read_columns(recording, index, columns)
        row |= {**found, "pts": index.pts, "keyframes": index.keyframes, "time_base": index.time_base}
    except UnreachedFile:
        raise
    except BrokenFile as error:
        row["broken"] = f"{error.path}\n{error.reason}"
    return row


def _joined(parts: Sequence[Any], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *(np.asarray(part, kind) for part in parts)]).view(np.uint64)


def rows_of(index: ArrayFile) -> Iterator[dict[str, Any]]:
    """Of each recording of an index what was read of it, by name."""
    said = index.metadata
    kinds = {"pts": ("frames", "pts", np.int64), "keyframes": ("keys", "keyframes", np.int64)}
    kinds |= {name: ("frames", f"column {name}", np.float64) for name in said["numbers"]}
    columns = {}
    for name, (counts, array, kind) in kinds.items():
        ends = list(accumulate(index[counts].tolist()))
        values = index[array].view(kind)
        columns[name] = [values[end - count : end] for count, end in zip(index[counts].tolist(), ends, strict=True)]
    for number, row in enumerate(said["rows"]):
        yield {**row, **{name: parts[number] for name, parts in columns.items()}}

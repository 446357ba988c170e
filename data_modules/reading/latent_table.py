"""Where the latents of a source's pictures lie: a table of keys and places, made once and memory-mapped."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data_modules.index.array_file import appear, mapped_array, stored_array
from data_modules.index.range_cache import RangeCache
from data_modules.index.ranges import RangeReader
from data_modules.index.shared_folder import SharedFolder
from data_modules.index.storage import InputFile, ask_each
from data_modules.reading.latent_shards import Encoder, StaleLatents, identities_in, open_shard
from data_modules.reading.picture_source import PictureSource

ROW_BITS = 32  # of a place that count rows; those above count files
NOWHERE = -1  # the place of a picture without latents
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What a folder holds of a source's pictures.

    Args:
        missing: (m,) int64, ascending: which of them have no latents; of several that are the same, the first.
        unused: latents of pictures that the source does not show, or not any more.
        table: where the latents lie, see `PlaceTable`; it is there if nothing is missing.
    """

    missing: np.ndarray
    unused: int
    table: Path


def look_for(
    keys: np.ndarray,
    identities: np.ndarray,
    folder: SharedFolder,
    encoder: Encoder,
    cache: Path,
    ranges: RangeCache | None,
) -> Found:
    """Look for the latents of a source's pictures. Files that are cut or of something else are told, and not used.

    Args:
        keys: (n,) int64, ascending, of the pictures.
        identities: (n,) uint64, of the pictures.
        folder: of the files of latents.
        encoder: what made them.
        cache: folder of tables.
        ranges: keeps what is read of remote files.

    Raises:
        UnreachedFile, Mistake: the storage does not give them, or the table cannot be written.
    """
    files = folder.files()
    table = table_file(_name(keys, identities, files), cache)
    with suppress(OSError, ValueError, KeyError):
        return Found(np.zeros(0, np.int64), PlaceTable(table).unused, table)
    held = ask_each(lambda file: _held_by(file, encoder, ranges), files, folder.path)
    numbers = [np.arange(len(some)) | (number << ROW_BITS) for number, some in enumerate(held)]
    there, places = np.concatenate([np.zeros(0, np.uint64), *held]), np.concatenate([np.zeros(0, np.int64), *numbers])
    places = _matched(identities, there, places)
    missing = np.flatnonzero(places == NOWHERE)
    missing = np.sort(missing[np.unique(identities[missing], return_index=True)[1]])
    used = np.sort(places[places != NOWHERE])
    unused = len(there) - int(np.count_nonzero(np.diff(used, prepend=NOWHERE)))
    if not len(missing):
        _write(table, keys, places, files, unused)
    return Found(missing, unused, table)


def _held_by(file: InputFile, encoder: Encoder, cache: RangeCache | None) -> np.ndarray:
    ranges = RangeReader(cache)
    try:
        return identities_in(open_shard(file, encoder, ranges), ranges)
    except StaleLatents as error:
        logger.warning("%s", error)
        return np.zeros(0, np.uint64)


def _matched(wanted: np.ndarray, there: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(n,) int64 places of what is wanted. Both are sorted, as looking up in no order waits for memory each time."""
    found = np.full(len(wanted), NOWHERE)
    if not len(there):
        return found
    order, ascending = np.argsort(there), np.argsort(wanted)
    there, looked_up = there[order], wanted[ascending]
    at = np.minimum(np.searchsorted(there, looked_up), len(there) - 1)
    found[ascending] = np.where(there[at] == looked_up, places[order[at]], NOWHERE)
    return found


class PlaceTable:
    """Keys of a source's pictures and the places of their latents.

    Args:
        file: `(2, n)` int64 as .npy; beside it, as .json, the files that places count.

    Attributes:
        files: of latents.

    Raises:
        OSError, ValueError: it was not made yet, or is not whole.
    """

    def __init__(self, file: Path) -> None:
        told = json.loads(file.with_suffix(".json").read_text())
        self.files = [InputFile(**one) for one in told["files"]]
        self.unused = int(told["unused"])
        self._numbers = stored_array(file)
        if self._numbers.shape != (2, told["pictures"]):
            raise ValueError(f"'{file}' is of another table")

    def places(self, keys: Sequence[int]) -> list[int]:
        """Places of pictures.

        Raises:
            KeyError: there is no such picture.
        """
        at = np.minimum(np.searchsorted(self._numbers[0], keys), self._numbers.shape[1] - 1)
        if not np.array_equal(self._numbers[0][at], keys):
            raise KeyError(f"there are no latents of all pictures {keys}")
        return self._numbers[1][at].tolist()


def table_file(name: str, cache: Path) -> Path:
    """Where a table of this name lies, once it is made."""
    return cache / "latents" / name[:2] / f"{name}.npy"


def _name(keys: np.ndarray, identities: np.ndarray, files: Sequence[InputFile]) -> str:
    """Of the table of these pictures and these files of latents."""
    digest = hashlib.sha256(identities.tobytes())
    digest.update(np.ascontiguousarray(keys, np.int64).tobytes())
    for file in files:
        digest.update(f"{file.path}\0{file.size}\0{file.changed}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _write(table: Path, keys: np.ndarray, places: np.ndarray, files: Sequence[InputFile], unused: int) -> None:
    def write(beside: Path) -> None:
        numbers = mapped_array(beside, np.int64, (2, len(keys)))
        numbers[0], numbers[1] = keys, places
        numbers.flush()

    told = {"files": [asdict(one) for one in files], "pictures": len(keys), "unused": unused}
    appear(table, write)
    appear(table.with_suffix(".json"), lambda beside: beside.write_text(json.dumps(told)))


def identities_of(source: PictureSource, keys: np.ndarray, at_once: int = 1 << 20) -> np.ndarray:
    """(n,) uint64 of many pictures, without much memory besides."""
    found = np.empty(len(keys), np.uint64)
    for start in range(0, len(keys), at_once):
        found[start : start + at_once] = source.identities(keys[start : start + at_once])
    return found

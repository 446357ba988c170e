"""Tokens that other programs have made: Megatron's .bin and .idx, MDS of MosaicML, and chunks of litData."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.dataset import BrokenFile
from data_modules.index.storage import is_remote
from data_modules.reading.files import listed
from lit_mm.mistake import MissingFile, Mistake

IDX, INDEX = ".idx", "index.json"
_MAGIC = b"MMIDIDX\x00\x00"
_MEGATRON = {1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 8: "u2"}  # numbers of types, as in its .idx
_LITDATA = {
    "no_header_tensor": {11: "u1", 12: "i1", 13: "i2", 14: "i2", 15: "i4", 16: "i4", 17: "i8", 18: "i8", 20: "u2"},
    "no_header_numpy": {0: "i1", 1: "i2", 2: "i4", 3: "i8", 4: "u1", 5: "u2", 6: "u4", 7: "u8"},
}
_MDS = {8: "u1", 9: "i1", 16: "u2", 17: "i2", 32: "u4", 33: "i4", 64: "u8", 65: "i8"}
_MDS_NAMES = {np.dtype(one).name: one for one in _MDS.values()}


@dataclass(frozen=True)
class TokenShard:
    """Documents in one file of tokens.

    Args:
        path: of the file.
        kind: NumPy's name of the tokens' type.
        starts: (documents,) int64, first byte of each.
        tokens: (documents,) int64, of each.
    """

    path: Path
    kind: str
    starts: np.ndarray
    tokens: np.ndarray


def holds_tokens(path: str) -> bool:
    """Whether a path names shards of tokens."""
    place = Path(path).expanduser()
    if is_remote(path) or not place.name:
        return False
    if place.is_dir():
        return (place / INDEX).is_file() or any(place.glob(f"*{IDX}"))
    return place.suffix in (IDX, ".bin") or _idx_of(place).is_file() or place.name == INDEX


def token_shards(path: str, column: str, key: str) -> list[TokenShard]:
    """The shards that a path names, in order.

    Args:
        path: a Megatron file or prefix, a folder or a pattern of such, or a folder with the `index.json` of MDS or of
            litData.
        column: that of the tokens, where an MDS has several.
        key: the YAML key, for messages.

    Raises:
        BrokenFile: a file is cut, or not of its format.
        MissingFile, Mistake: a file is missing, or is of a kind that is not read.
    """
    place = Path(path).expanduser()
    folder = place.parent if place.name == INDEX else place
    try:
        if (folder / INDEX).is_file():
            return _indexed(folder, column, key)
        if place.is_dir():
            files = sorted(place.glob(f"*{IDX}"))
        else:
            named = sorted(glob(str(place))) if has_magic(str(place)) else [str(place)]
            files = list(dict.fromkeys(_idx_of(Path(name)) for name in named))  # a pattern may name both of a pair
        return [_megatron(file) for file in files]
    except FileNotFoundError as error:
        raise MissingFile(f"{key}: '{error.filename}', which is a part of '{path}', is not there") from error


def _idx_of(place: Path) -> Path:
    return place.with_suffix(IDX) if place.suffix in (IDX, ".bin") else place.with_name(place.name + IDX)


def _megatron(file: Path) -> TokenShard:
    content = file.read_bytes()
    if not content.startswith(_MAGIC) or len(content) < 34:
        raise BrokenFile(file, "it is no index of Megatron (MMIDIDX)")
    version, number, count, ends = struct.unpack_from("<QBQQ", content, len(_MAGIC))
    if version != 1 or number not in _MEGATRON:
        raise BrokenFile(file, f"it is of version {version} and type {number}; version 1 with integers is read")
    if len(content) < 34 + 12 * count + 8 * ends:
        raise BrokenFile(file, "it is cut")
    sizes = np.frombuffer(content, "<i4", count, 34).astype(np.int64)
    starts = np.frombuffer(content, "<i8", count, 34 + 4 * count)
    documents = np.frombuffer(content, "<i8", ends, 34 + 12 * count)
    if not ends or documents[0] or documents[-1] != count or (np.diff(documents) < 0).any() or (sizes < 0).any():
        raise BrokenFile(file, f"it is damaged: its documents are not the {count} sequences, in their order")
    sums = np.concatenate([[0], np.cumsum(sizes)])
    tokens = sums[documents[1:]] - sums[documents[:-1]]
    firsts, filled = documents[:-1], tokens > 0
    return _checked(TokenShard(file.with_suffix(".bin"), _MEGATRON[number], starts[firsts[filled]], tokens[filled]))


def _indexed(folder: Path, column: str, key: str) -> list[TokenShard]:
    index: Any = {}
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except ValueError as error:
        raise BrokenFile(folder / INDEX, error) from error
    with _damages_of(folder / INDEX):
        if isinstance(index, dict) and "shards" in index:
            return [_mds(folder, shard, column, key) for shard in index["shards"] if shard["samples"]]
        if isinstance(index, dict) and "chunks" in index:
            return [_litdata(folder, chunk, index["config"], key) for chunk in index["chunks"]]
    raise Mistake(f"{key}: '{folder / INDEX}' has neither the 'shards' of MDS nor the 'chunks' of litData")


def _litdata(folder: Path, chunk: dict[str, Any], config: dict[str, Any], key: str) -> TokenShard:
    name, _, number = str((config.get("data_format") or [""])[0]).partition(":")
    kind = _LITDATA.get(name, {}).get(int(number) if number.isdigit() else -1)
    if kind is None or config.get("compression"):
        found = f"{config.get('data_format')} with compression {config.get('compression')}"
        raise Mistake(f"{key}: '{folder}' holds {found}; integers of litData's TokensLoader are read, not compressed")
    path = folder / chunk["filename"]
    with _damages_of(path):
        return _checked(_items(path, kind))


def _items(path: Path, kind: str) -> TokenShard:
    """Items as litData has them: how many, where each begins and the last ends, and their bytes."""
    content = np.memmap(path, np.uint8, "r")
    (count,) = np.frombuffer(content[:4], "<u4").tolist()
    if len(content) < 4 * (count + 2):
        raise BrokenFile(path, "it is cut")
    places = np.frombuffer(content[4 : 4 * (count + 2)], "<u4").astype(np.int64)
    return TokenShard(path, kind, places[:-1], np.diff(places) // np.dtype(kind).itemsize)


def _mds(folder: Path, shard: dict[str, Any], column: str, key: str) -> TokenShard:
    if shard.get("format") != "mds" or shard.get("zip_data") or shard.get("compression"):
        found = f"{shard.get('format')} with compression {shard.get('compression')}"
        raise Mistake(f"{key}: '{folder}' holds shards of {found}; MDS that is not compressed is read")
    names, encodings = shard["column_names"], shard["column_encodings"]
    arrays = [name for name, one in zip(names, encodings, strict=True) if one.startswith("ndarray") or one == "bytes"]
    wanted = column if column in arrays else arrays[0] if len(arrays) == 1 else "tokens"
    if wanted not in arrays:
        raise Mistake(f"{key}: '{folder}' has no column '{column}' of tokens; there are {listed(names, 'and')}")
    path, at = folder / shard["raw_data"]["basename"], names.index(wanted)
    count, size = int(shard["samples"]), int(shard["raw_data"]["bytes"])
    with _damages_of(path):
        content = np.memmap(path, np.uint8, "r")
        if len(content) < size:
            raise BrokenFile(path, f"it has {len(content)} of {size} bytes")
        places = np.frombuffer(content[4 : 4 * (count + 2)], "<u4").tolist()
        values = [_mds_values(content, place, shard["column_sizes"], at, encodings[at]) for place in places[:-1]]
        kinds = {kind for _, _, kind in values}
        if len(kinds) != 1:
            raise Mistake(f"{key}: '{path}' has tokens of the types {listed(sorted(kinds), 'and')}; one is expected")
        starts, tokens = (np.array([one[i] for one in values], np.int64) for i in range(2))
        return _checked(TokenShard(path, kinds.pop(), starts, tokens))


def _mds_values(
    content: np.ndarray, place: int, sizes: Sequence[int | None], at: int, encoding: str
) -> tuple[int, int, str]:
    """First byte, number and type of the tokens of a sample."""
    lengths: list[int] = []
    head = place
    for size in sizes:
        if size:
            lengths.append(size)
        else:
            lengths.append(int(np.frombuffer(content[head : head + 4], "<u4")[0]))
            head += 4
    start, stop = head + sum(lengths[:at]), head + sum(lengths[: at + 1])
    if encoding == "bytes":
        kind = "i8"  # as LLM Foundry writes them
    else:
        _, *given = encoding.split(":")
        if given and given[0]:
            kind = _MDS_NAMES[given[0]]
        else:
            kind, start = _MDS[int(content[start])], start + 1
        if len(given) < 2:
            ndim, width = int(content[start]) >> 2, 1 << (int(content[start]) & 3)
            start += 1 + ndim * width
    return start, (stop - start) // np.dtype(kind).itemsize, kind


def _checked(shard: TokenShard) -> TokenShard:
    size, width = shard.path.stat().st_size, np.dtype(shard.kind).itemsize
    if (shard.starts < 0).any() or (shard.tokens < 0).any():
        raise BrokenFile(shard.path, "it is damaged: a document begins before it, or ends before it begins")
    if (shard.tokens > size // width).any() or (shard.starts > size - shard.tokens * width).any():
        raise BrokenFile(shard.path, f"it ends at byte {size}, within its tokens")
    return shard


@contextmanager
def _damages_of(path: Path) -> Iterator[None]:
    """Numbers that are damaged lead anywhere, and keys that are lead nowhere."""
    try:
        yield
    except (Mistake, OSError):
        raise
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise BrokenFile(path, f"it is damaged ({type(error).__name__}: {error})") from error

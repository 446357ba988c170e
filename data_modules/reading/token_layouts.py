"""Where the tokens lie in the bytes of a shard that Megatron, MDS of MosaicML or litData has written."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_modules.dataset import BrokenFile
from data_modules.reading.files import listed

_MAGIC = b"MMIDIDX\x00\x00"
_MEGATRON = {1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 8: "u2"}  # numbers of types, as in its .idx
_LITDATA = {
    "no_header_tensor": {11: "u1", 12: "i1", 13: "i2", 14: "i2", 15: "i4", 16: "i4", 17: "i8", 18: "i8", 20: "u2"},
    "no_header_numpy": {0: "i1", 1: "i2", 2: "i4", 3: "i8", 4: "u1", 5: "u2", 6: "u4", 7: "u8"},
}
_MDS = {8: "u1", 9: "i1", 16: "u2", 17: "i2", 32: "u4", 33: "i4", 64: "u8", 65: "i8"}
_MDS_NAMES = {np.dtype(one).name: one for one in _MDS.values()}


@dataclass(frozen=True)
class Places:
    """Documents in the bytes of a shard.

    Args:
        kind: NumPy's name of the tokens' type.
        starts: (documents,) int64, first byte of each.
        tokens: (documents,) int64, of each.
    """

    kind: str
    starts: np.ndarray
    tokens: np.ndarray

    def checked(self, path: object, size: int) -> Places:
        """These, if the shard has so many bytes.

        Raises:
            BrokenFile: a document begins before it, or it ends within its tokens.
        """
        width = np.dtype(self.kind).itemsize
        if (self.starts < 0).any() or (self.tokens < 0).any():
            raise BrokenFile(path, "it is damaged: a document begins before it, or ends before it begins")
        if (self.tokens > size // width).any() or (self.starts > size - self.tokens * width).any():
            raise BrokenFile(path, f"it ends at byte {size}, within its tokens")
        return self


def in_megatron(index: bytes, file: object) -> Places:
    """What the .idx of a .bin says.

    Args:
        index: its bytes.
        file: its path, for messages.

    Raises:
        BrokenFile: it is cut or damaged, or of another kind.
    """
    if not index.startswith(_MAGIC) or len(index) < 34:
        raise BrokenFile(file, "it is no index of Megatron (MMIDIDX)")
    version, number, count, ends = struct.unpack_from("<QBQQ", index, len(_MAGIC))
    if version != 1 or number not in _MEGATRON:
        raise BrokenFile(file, f"it is of version {version} and type {number}; version 1 with integers is read")
    if len(index) < 34 + 12 * count + 8 * ends:
        raise BrokenFile(file, "it is cut")
    sizes = np.frombuffer(index, "<i4", count, 34).astype(np.int64)
    starts = np.frombuffer(index, "<i8", count, 34 + 4 * count)
    documents = np.frombuffer(index, "<i8", ends, 34 + 12 * count)
    if not ends or documents[0] or documents[-1] != count or (np.diff(documents) < 0).any() or (sizes < 0).any():
        raise BrokenFile(file, f"it is damaged: its documents are not the {count} sequences, in their order")
    sums = np.concatenate([[0], np.cumsum(sizes)])
    tokens = sums[documents[1:]] - sums[documents[:-1]]
    firsts, filled = documents[:-1], tokens > 0
    return Places(_MEGATRON[number], starts[firsts[filled]], tokens[filled])


def litdata_kind(config: Mapping[str, Any]) -> str | None:
    """NumPy's name of the tokens' type, by the index of litData; None where its items are no tokens."""
    name, _, number = str((config.get("data_format") or [""])[0]).partition(":")
    return _LITDATA.get(name, {}).get(int(number) if number.isdigit() else -1)


def in_litdata(content: np.ndarray, kind: str, path: object) -> Places:
    """Items as litData has them: how many, where each begins and the last ends, and their bytes.

    Args:
        content: (bytes,) uint8 of a chunk.
        kind: of its tokens, see `litdata_kind`.
        path: of it, for messages.

    Raises:
        BrokenFile: it is cut.
    """
    (count,) = np.frombuffer(content[:4], "<u4").tolist() if len(content) >= 4 else (0,)
    if len(content) < 4 * (count + 2):
        raise BrokenFile(path, "it is cut")
    places = np.frombuffer(content[4 : 4 * (count + 2)], "<u4").astype(np.int64)
    return Places(kind, places[:-1], np.diff(places) // np.dtype(kind).itemsize).checked(path, len(content))


def in_mds(content: np.ndarray, shard: Mapping[str, Any], at: int, path: object) -> Places:
    """Samples as MDS has them.

    Args:
        content: (bytes,) uint8 of a shard.
        shard: what its index says of it.
        at: number of the column of tokens.
        path: of it, for messages.

    Raises:
        BrokenFile: it is cut, or its samples have tokens of several types.
    """
    if len(content) < shard["raw_data"]["bytes"]:
        raise BrokenFile(path, f"it has {len(content)} of {shard['raw_data']['bytes']} bytes")
    places = np.frombuffer(content[4 : 4 * (int(shard["samples"]) + 2)], "<u4").tolist()
    encoding = shard["column_encodings"][at]
    values = [_mds_values(content, place, shard["column_sizes"], at, encoding) for place in places[:-1]]
    kinds = {kind for _, _, kind in values}
    if len(kinds) != 1:
        raise BrokenFile(path, f"it has tokens of the types {listed(sorted(kinds), 'and')}; one is expected")
    starts, tokens = (np.array([one[i] for one in values], np.int64) for i in range(2))
    return Places(kinds.pop(), starts, tokens).checked(path, len(content))


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

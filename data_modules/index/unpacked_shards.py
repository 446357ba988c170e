"""Shards of tokens, mapped where they are, or unpacked once into the cache where they are compressed or far away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from data_modules.dataset import BrokenFile
from data_modules.index.array_file import ArrayFile
from data_modules.index.keys import key_of_texts
from data_modules.index.making import make_missing
from data_modules.index.sidecars import Indexing, Sidecar
from data_modules.index.storage import InputFile, content_of
from data_modules.reading.code import code_of
from data_modules.reading.token_shards import PACKINGS, ShardFile
from lit_mm.mistake import Mistake


@dataclass(frozen=True)
class TokenShard:
    """Documents of a file of tokens.

    Args:
        file: which.
        kind: NumPy's name of the tokens' type.
        starts: (documents,) int64, first byte of each in `content`.
        tokens: (documents,) int64, of each.
        unpacked: the file of the cache that holds them; None of one that is read where it is.
    """

    file: InputFile
    kind: str
    starts: np.ndarray
    tokens: np.ndarray
    unpacked: Path | None = None

    def content(self) -> np.ndarray:
        """(bytes,) uint8, memory-mapped.

        Raises:
            Mistake: what was unpacked is no longer there; the next start unpacks it again.
        """
        if self.unpacked is None:
            return np.memmap(self.file.path, np.uint8, "r")
        try:
            return ArrayFile(self.unpacked)["ids"].view(np.uint8)
        except (OSError, ValueError) as error:
            raise Mistake(
                f"data.loader.cache: '{self.unpacked}', the tokens of '{self.file.path}', is gone or cut; start again "
                "to make it anew"
            ) from error


def unpacking(files: Sequence[ShardFile], cache: Path) -> Indexing | None:
    """What unpacks those that are not read where they are; None if all are."""
    named = [(file, f"tokens {code_of(unpack)} {file.packing} {file.index}") for file in files if not file.is_mapped]
    return Indexing([Sidecar.of(file, depends_on, cache) for file, depends_on in named], unpack) if named else None


def unpack(file: InputFile) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read and unpack a shard.

    Args:
        file: the `ShardFile`.

    Returns:
        Arrays: `ids`, uint16 or uint32, tokens of all documents, and `lengths`, (documents,) uint32, of each.

    Raises:
        OSError: it cannot be unpacked.
        BrokenFile: it is cut, of another kind, has a token below 0, or its storage does not give it.
    """
    import pyarrow as pa

    shard = cast(ShardFile, file)
    content = content_of(shard)
    if shard.packing:
        content = pa.CompressedInputStream(pa.BufferReader(content), PACKINGS[shard.packing]).read()
    bytes_ = np.frombuffer(content, np.uint8)
    places = shard.places(bytes_)
    width = np.dtype(places.kind).itemsize
    stops = places.starts + width * places.tokens
    parts = [bytes_[start:stop] for start, stop in zip(places.starts, stops, strict=True)]
    ids = np.frombuffer(b"".join(part.tobytes() for part in parts), f"<{places.kind}").astype(np.int64)
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < 1 << 32:
        raise BrokenFile(shard.path, f"it has the tokens {ids.min()} to {ids.max()}; 32 bits from 0 on are read")
    kind = np.uint16 if not len(ids) or int(ids.max()) < 1 << 16 else np.uint32
    return {"ids": ids.astype(kind), "lengths": places.tokens.astype(np.uint32)}, {}


def open_shards(files: Sequence[ShardFile], cache: Path, key: str) -> list[TokenShard]:
    """Shards that have documents, in order.

    Args:
        files: of tokens.
        cache: folder of what is unpacked.
        key: the YAML key, for messages.

    Raises:
        BrokenFile: a file is cut, or not of its kind.
        Mistake: the cache cannot be written to.
    """
    indexing = unpacking(files, cache)
    if indexing is not None:
        make_missing(indexing, key, cache / "locks" / key_of_texts(s.name for s in indexing.sidecars))
    sidecars = iter(indexing.sidecars if indexing else ())
    shards = [_mapped(file) if file.is_mapped else _unpacked(file, next(sidecars)) for file in files]
    return [shard for shard in shards if len(shard.tokens)]


def _mapped(file: ShardFile) -> TokenShard:
    places = file.places(np.memmap(file.path, np.uint8, "r") if file.size else np.zeros(0, np.uint8))
    return TokenShard(file, places.kind, places.starts, places.tokens)


def _unpacked(file: ShardFile, sidecar: Sidecar) -> TokenShard:
    stored = sidecar.open()
    ids, tokens = stored["ids"], stored["lengths"].astype(np.int64)
    starts = ids.dtype.itemsize * (np.cumsum(tokens) - tokens)
    return TokenShard(file, f"u{ids.dtype.itemsize}", starts, tokens, sidecar.path)

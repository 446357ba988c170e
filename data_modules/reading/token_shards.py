"""Files of tokens that other programs have made: Megatron's .bin and .idx, MDS of MosaicML, and chunks of litData."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.dataset import BrokenFile
from data_modules.index.input_files import local_file, remote_file
from data_modules.index.storage import InputFile, fetch, is_remote
from data_modules.index.text_files import INDEXED
from data_modules.reading.damages import damages_of
from data_modules.reading.files import is_on_hub, listed
from data_modules.reading.token_layouts import Places, in_litdata, in_mds, in_megatron, litdata_kind
from lit_mm.mistake import MissingFile, Mistake

IDX, INDEX = ".idx", "index.json"
PACKINGS = {"zstd": "zstd", "gz": "gzip", "bz2": "bz2", "br": "brotli"}  # in an index, and for pyarrow


@dataclass(frozen=True)
class ShardFile(InputFile):
    """A file of tokens.

    Args:
        index: JSON of what its index says of it and its column of tokens; empty beside an .idx.
        packing: how it is compressed, one of `PACKINGS`; empty where it is not.
    """

    index: str
    packing: str = ""

    @property
    def is_mapped(self) -> bool:
        """Whether its tokens are read where they are; else they are unpacked into a cache first."""
        return not self.packing and not is_remote(self.path)

    def places(self, content: np.ndarray) -> Places:
        """Where tokens lie.

        Args:
            content: (bytes,) uint8 of the file, unpacked.

        Raises:
            BrokenFile: it or its .idx is cut, or of another kind.
        """
        if not self.index:
            beside = Path(self.path).with_suffix(IDX)
            return in_megatron(beside.read_bytes(), beside).checked(self.path, self.size)
        said = json.loads(self.index)
        with damages_of(self.path):
            if "chunk" in said:
                return in_litdata(content, said["kind"], self.path)
            return in_mds(content, said["shard"], said["at"], self.path)


def holds_tokens(path: str) -> bool:
    """Whether a path names files of tokens."""
    place = Path(path).expanduser()
    if is_remote(path):
        return _is_remote_index(path)
    if not place.name:
        return False
    if place.is_dir():
        return (place / INDEX).is_file() or any(place.glob(f"*{IDX}"))
    return place.suffix in (IDX, ".bin") or _idx_of(place).is_file() or place.name == INDEX


def _is_remote_index(path: str) -> bool:
    if path.endswith(f"/{INDEX}"):
        return True
    if path.lower().endswith(INDEXED) or has_magic(path) or "{" in path or is_on_hub(path, INDEXED):
        return False
    try:
        return remote_file(f"{path.rstrip('/')}/{INDEX}") is not None
    except (ImportError, ValueError):  # whoever looks for other files there says what is wrong
        return False


def shard_files(path: str, column: str, key: str) -> list[ShardFile]:
    """The files of tokens that a path names, in order.

    Args:
        path: a Megatron file or prefix, a folder or a pattern of such, or a folder with the `index.json` of MDS or of
            litData, which may be on another machine.
        column: that of the tokens, where an MDS has several.
        key: the YAML key, for messages.

    Raises:
        BrokenFile: the `index.json` is none.
        MissingFile, Mistake: a file is missing, or is of a kind that is not read.
    """
    if is_remote(path):
        return _indexed(path.removesuffix(INDEX).rstrip("/"), column, key)
    place = Path(path).expanduser()
    folder = place.parent if place.name == INDEX else place
    try:
        if (folder / INDEX).is_file():
            return _indexed(str(folder), column, key)
        if place.is_dir():
            files = sorted(place.glob(f"*{IDX}"))
        else:
            named = sorted(glob(str(place))) if has_magic(str(place)) else [str(place)]
            files = list(dict.fromkeys(_idx_of(Path(name)) for name in named))  # a pattern may name both of a pair
        for file in files:
            file.stat()
        return [_file(file.with_suffix(".bin"), {}) for file in files]
    except FileNotFoundError as error:
        raise MissingFile(f"{key}: '{error.filename}', which is a part of '{path}', is not there") from error


def _idx_of(place: Path) -> Path:
    return place.with_suffix(IDX) if place.suffix in (IDX, ".bin") else place.with_name(place.name + IDX)


def _file(path: Path, said: Mapping[str, Any], packing: str = "") -> ShardFile:
    file = local_file(path)
    return ShardFile(file.path, file.size, file.changed, json.dumps(said) if said else "", packing)


def _indexed(folder: str, column: str, key: str) -> list[ShardFile]:
    found = remote_file(f"{folder}/{INDEX}") if is_remote(folder) else local_file(Path(folder, INDEX))
    if found is None:
        raise MissingFile(f"{key}: there is no '{folder}/{INDEX}'")
    index: Any = {}
    try:
        content = fetch(found.path, 0, found.size) if is_remote(folder) else Path(found.path).read_bytes()
        index = json.loads(content)
    except ValueError as error:
        raise BrokenFile(found.path, error) from error
    with damages_of(found.path):
        if isinstance(index, dict) and "shards" in index:
            return [_mds(folder, shard, column, key, found) for shard in index["shards"] if shard["samples"]]
        if isinstance(index, dict) and "chunks" in index:
            return [_litdata(folder, chunk, index["config"], key, found) for chunk in index["chunks"]]
    raise Mistake(f"{key}: '{found.path}' has neither the 'shards' of MDS nor the 'chunks' of litData")


def _litdata(folder: str, chunk: dict[str, Any], config: dict[str, Any], key: str, index: InputFile) -> ShardFile:
    kind = litdata_kind(config)
    if kind is None:
        raise Mistake(
            f"{key}: '{folder}' holds items of the format {config.get('data_format')}; integers of litData's "
            "TokensLoader are read"
        )
    packing = _packing(config.get("compression"), folder, key)
    said = {"chunk": chunk["filename"], "kind": kind}
    if is_remote(folder):
        return _remote(folder, chunk["filename"], chunk["chunk_bytes"], index, said, packing)
    return _file(Path(folder, chunk["filename"]), said, packing)


def _mds(folder: str, shard: dict[str, Any], column: str, key: str, index: InputFile) -> ShardFile:
    if shard.get("format") != "mds":
        raise Mistake(f"{key}: '{folder}' holds shards of {shard.get('format')}; those of mds are read")
    names, encodings = shard["column_names"], shard["column_encodings"]
    arrays = [name for name, one in zip(names, encodings, strict=True) if one.startswith("ndarray") or one == "bytes"]
    wanted = column if column in arrays else arrays[0] if len(arrays) == 1 else "tokens"
    if wanted not in arrays:
        raise Mistake(f"{key}: '{folder}' has no column '{column}' of tokens; there are {listed(names, 'and')}")
    said, raw, packed = {"shard": shard, "at": names.index(wanted)}, shard["raw_data"], shard.get("zip_data")
    # Where its library has unpacked one on this machine, both lie beside each other.
    chosen = raw if not packed or Path(folder, raw["basename"]).is_file() else packed
    packing = "" if chosen is raw else _packing(shard.get("compression"), folder, key)
    if is_remote(folder):
        return _remote(folder, chosen["basename"], chosen["bytes"], index, said, packing)
    return _file(Path(folder, chosen["basename"]), said, packing)


def _remote(folder: str, name: str, size: int, index: InputFile, said: Mapping[str, Any], packing: str) -> ShardFile:
    """As its index tells: thousands are not asked for one by one."""
    return ShardFile(f"{folder}/{name}", int(size), index.changed, json.dumps(said), packing)


def _packing(said: str | None, folder: str, key: str) -> str:
    name = (said or "").partition(":")[0]
    if name and name not in PACKINGS:
        raise Mistake(f"{key}: '{folder}' is compressed with {name}; {listed(list(PACKINGS))} is unpacked")
    return name

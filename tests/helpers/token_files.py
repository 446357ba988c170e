"""Files of tokens as Megatron, MosaicML Streaming and litData write them, byte for byte."""

from __future__ import annotations

import bz2
import gzip
import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zstandard

PACKED = {"zstd": zstandard.compress, "gz": gzip.compress, "bz2": bz2.compress}
Documents = Sequence[Sequence[int]]


def write_megatron(prefix: Path, documents: Documents, kind: str = "<u2", parts: int = 1) -> Path:
    """`prefix`.bin and .idx; each document is of so many sequences."""
    sequences = [part for document in documents for part in np.array_split(np.array(document, kind), parts)]
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(prefix.name + ".bin").write_bytes(b"".join(one.tobytes() for one in sequences))
    sizes = np.array([len(one) for one in sequences], "<i4")
    places = (np.cumsum(sizes, dtype="<i8") - sizes) * np.dtype(kind).itemsize
    ends = np.arange(len(documents) + 1, dtype="<i8") * parts
    number = {"<u2": 8, "<i4": 4}[kind]
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, number, len(sizes), len(ends))
    index = head + sizes.tobytes() + places.astype("<i8").tobytes() + ends.tobytes()
    prefix.with_name(prefix.name + ".idx").write_bytes(index)
    return prefix


def write_mds(folder: Path, documents: Documents, encoding: str = "ndarray:uint16") -> Path:
    """Two shards of samples with a text and tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for number, part in enumerate((documents[:1], documents[1:])):
        samples = []
        for document in part:
            source = b"web"
            values = np.array(document, {"bytes": "<i8", "ndarray": "<i4"}.get(encoding, "<u2")).tobytes()
            if encoding.startswith("ndarray"):
                values = bytes([1 << 2 | 1]) + struct.pack("<H", len(document)) + values  # one dimension, as uint16
            values = bytes([33]) + values if encoding == "ndarray" else values
            samples.append(struct.pack("<II", len(source), len(values)) + source + values)
        columns = {
            "column_encodings": ["str", encoding],
            "column_names": ["source", "tokens"],
            "column_sizes": [None, None],
        }
        config = json.dumps({**columns, "format": "mds"}).encode()
        first = 4 + 4 * (len(samples) + 1) + len(config)
        places = np.cumsum([first, *map(len, samples)]).astype("<u4")
        content = struct.pack("<I", len(samples)) + places.tobytes() + config + b"".join(samples)
        name = f"shard.{number:05}.mds"
        (folder / name).write_bytes(content)
        raw = {"basename": name, "bytes": len(content), "hashes": {}}
        shards.append(
            {
                **columns,
                "compression": None,
                "format": "mds",
                "hashes": [],
                "raw_data": raw,
                "samples": len(samples),
                "zip_data": None,
            }
        )
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": shards}))
    return folder


def pack_mds(folder: Path, packing: str) -> Path:
    """The same shards as `MDSWriter(compression=...)` leaves them."""
    index = json.loads((folder / "index.json").read_text())
    for shard in index["shards"]:
        raw = folder / shard["raw_data"]["basename"]
        packed = raw.with_name(f"{raw.name}.{packing}")
        packed.write_bytes(PACKED[packing](raw.read_bytes()))
        raw.unlink()
        size = packed.stat().st_size
        shard |= {"compression": packing, "zip_data": {"basename": packed.name, "bytes": size, "hashes": {}}}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def write_litdata(folder: Path, documents: Documents, compression: str | None = None) -> Path:
    """Two chunks of int32 tensors, as of `optimize` with a TokensLoader; compressed with `zstd` where it is said."""
    folder.mkdir(parents=True, exist_ok=True)
    chunks = []
    for number, part in enumerate((documents[:1], documents[1:])):
        items = [np.array(document, "<i4").tobytes() for document in part]
        places = np.cumsum([4 + 4 * (len(items) + 1), *map(len, items)]).astype("<u4")
        content = struct.pack("<I", len(items)) + places.tobytes() + b"".join(items)
        name = f"chunk-0-{number}.zstd.bin" if compression else f"chunk-0-{number}.bin"
        (folder / name).write_bytes(PACKED["zstd"](content) if compression else content)
        dim = sum(map(len, part))
        chunks.append({"chunk_bytes": len(content), "chunk_size": len(items), "dim": dim, "filename": name})
    config = {
        "compression": compression,
        "data_format": ["no_header_tensor:16"],
        "data_spec": "[1]",
        "item_loader": "TokensLoader",
    }
    (folder / "index.json").write_text(json.dumps({"chunks": chunks, "config": config}))
    return folder

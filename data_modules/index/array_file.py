"""Files of arrays that appear whole or not at all, and are memory-mapped."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lit_mm.mistake import Mistake

_TYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64}


def appear(file: Path, write: Callable[[Path], Any], key: str = "data.loader.cache") -> None:
    """Write a file under another name and rename it, so that whoever looks sees all of it or nothing.

    Args:
        file: its name in the end; missing folders are made.
        write: writes all of it to the path it is given.
        key: the YAML key that names the folder, for the message.

    Raises:
        Mistake: the disk is full, or may not be written to.
    """
    beside = file.with_name(f".{os.uname().nodename}-{os.getpid()}-{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        with beside.open("rb+") as written:
            os.fsync(written.fileno())
        beside.replace(file)
    except OSError as error:
        raise Mistake(
            f"{key}: '{file}' cannot be written ({error.strerror or error}); name a folder with room"
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def mapped_array(file: Path, kind: type[np.generic], shape: tuple[int, ...]) -> np.memmap:
    """An array of a new .npy file, to be filled.

    Its room is taken at once: of a mapped file that finds none later, a process is told by a signal that kills it.

    Args:
        file: its path.
        kind: of its numbers.
        shape: of it.

    Raises:
        OSError: the disk is full, or may not be written to.
    """
    array: np.memmap = np.lib.format.open_memmap(file, "w+", kind, shape)
    if hasattr(os, "posix_fallocate"):
        with file.open("rb+") as stream:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
    return array


def stored_array(file: Path) -> np.ndarray:
    """A .npy file, memory-mapped. It is no np.memmap, which takes three times as long to look up a number in.

    Raises:
        OSError: there is no such file.
        ValueError: it is not whole.
    """
    try:
        stored: np.ndarray = np.load(file, mmap_mode="r").view(np.ndarray)
    except EOFError as error:  # of an empty one
        raise ValueError(f"'{file}' is cut") from error
    return stored


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write unsigned integers as a safetensors file.

    Args:
        file: its path.
        arrays: by name, of 8 to 64 bits.
        metadata: what JSON can hold.

    Raises:
        Mistake: see `appear`.
    """
    from safetensors.numpy import save

    content = save(dict(arrays), {"json": json.dumps(metadata)})  # of several texts the order would be any
    appear(file, lambda beside: beside.write_bytes(content))


class ArrayFile:
    """Arrays of a file that `write_arrays` made, memory-mapped.

    Args:
        file: its path.

    Attributes:
        metadata: what was stored beside them.

    Raises:
        OSError: there is no such file.
        ValueError: it is not whole, or is no safetensors file.
    """

    def __init__(self, file: Path) -> None:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
            size = os.fstat(stream.fileno()).st_size
            if 8 + length > size:
                raise ValueError(f"'{file}' is cut")
            header: dict[str, Any] = json.loads(stream.read(length))
        self.metadata: dict[str, Any] = json.loads(header.pop("__metadata__")["json"])
        if max((entry["data_offsets"][1] for entry in header.values()), default=0) != size - 8 - length:
            raise ValueError(f"'{file}' is cut")
        content = np.memmap(file, np.uint8, "r")[8 + length :].view(np.ndarray)
        self._arrays: dict[str, np.ndarray] = {}
        for name, entry in header.items():
            start, stop = entry["data_offsets"]
            self._arrays[name] = content[start:stop].view(_TYPES[entry["dtype"]]).reshape(entry["shape"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

"""A part of a file that is read as if it were one, wherever the file lies."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from typing import Any

from data_modules.index.ranges import RangeReader
from data_modules.index.storage import InputFile

Part = tuple[int, int]  # offset of its first byte, and its size in bytes
BLOCK = 1 << 20  # bytes of a remote file that are asked for at once
KEPT = 8  # blocks of a part that are kept


class FilePart(io.RawIOBase):
    """Bytes of a file from `offset` on, `size` of them.

    Args:
        path: of the file.
        part: offset and size in bytes.

    Raises:
        OSError: the file can't be opened.
    """

    def __init__(self, path: str, part: Part) -> None:
        self._file = open(path, "rb")  # noqa: SIM115  # closed with this
        self._offset, self._size = part
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To a byte, counted from the part's first."""
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        """The byte that is read next."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """The next bytes; none behind the part's end."""
        count = max(0, min(len(buffer), self._size - self._at))
        content = self._read(count) if count else b""
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def _read(self, count: int) -> bytes:
        """At most so many bytes, from where it stands on."""
        return os.pread(self._file.fileno(), count, self._offset + self._at)

    def close(self) -> None:
        """The file too."""
        self._file.close()
        super().close()


class RemotePart(FilePart):
    """Bytes of a file on another machine, asked for in blocks.

    Args:
        file: which.
        part: offset and size in bytes.
        ranges: reads it.
    """

    def __init__(self, file: InputFile, part: Part, ranges: RangeReader) -> None:
        self._remote, self._ranges = file, ranges
        self._offset, self._size = part
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def _read(self, count: int) -> bytes:
        """At most so many bytes, from where it stands on.

        Raises:
            BrokenFile: the storage fails for good.
        """
        number, within = divmod(self._at, BLOCK)
        if number not in self._blocks:
            start = number * BLOCK
            block = self._ranges.read(self._remote, self._offset + start, min(BLOCK, self._size - start))
            while len(self._blocks) >= KEPT:
                self._blocks.popitem(last=False)
            self._blocks[number] = block
        self._blocks.move_to_end(number)
        return self._blocks[number][within : within + count]

    def close(self) -> None:
        """What was read is forgotten."""
        self._blocks.clear()
        io.RawIOBase.close(self)

"""A part of a file that is read as if it were one, wherever the file lies."""

from __future__ import annotations

import os
from collections import OrderedDict

from data_modules.index.byte_view import ByteView
from data_modules.index.ranges import RangeReader
from data_modules.index.storage import InputFile

Part = tuple[int, int]  # offset of its first byte, and its size in bytes
BLOCK = 1 << 20  # bytes of a remote file that are asked for at once
KEPT = 8  # blocks of a part that are kept


class LocalPart(ByteView):
    """Bytes of a file from `offset` on, `size` of them.

    Args:
        path: of the file.
        part: offset and size in bytes.

    Raises:
        OSError: the file can't be opened.
    """

    def __init__(self, path: str, part: Part) -> None:
        super().__init__(part[1])
        self._file = open(path, "rb")  # noqa: SIM115  # closed with this
        self._offset = part[0]

    def _read(self, count: int) -> bytes:
        return os.pread(self._file.fileno(), count, self._offset + self._at)

    def close(self) -> None:
        """The file too."""
        self._file.close()
        super().close()


class RemotePart(ByteView):
    """Bytes of a file on another machine, asked for in blocks.

    Args:
        file: which.
        part: offset and size in bytes.
        ranges: reads it.
    """

    def __init__(self, file: InputFile, part: Part, ranges: RangeReader) -> None:
        super().__init__(part[1])
        self._remote, self._ranges, self._offset = file, ranges, part[0]
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def _read(self, count: int) -> bytes:
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
        super().close()

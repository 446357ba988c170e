"""A part of a file that is read as if it were one."""

from __future__ import annotations

import io
import os
from typing import Any

Part = tuple[int, int]  # offset of its first byte, and its size in bytes


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
        content = os.pread(self._file.fileno(), count, self._offset + self._at)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        """The file too."""
        self._file.close()
        super().close()

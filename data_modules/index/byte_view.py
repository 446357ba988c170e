"""Bytes that lie somewhere, read as a file of their own."""

from __future__ import annotations

import io
import os
from typing import Any


class ByteView(io.RawIOBase):
    """Some bytes that are read as a file of their own.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0

    def _read(self, count: int) -> bytes:
        """At least one byte and at most so many, from `_at` on."""
        raise NotImplementedError

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To a byte, counted from the first."""
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        """The byte that is read next."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """The next bytes; none behind the end."""
        count = max(0, min(len(buffer), self._size - self._at))
        content = self._read(count) if count else b""
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

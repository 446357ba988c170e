"""Parts of files by their places, fetched ahead where it is known what will be asked for."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from data_modules.dataset import BrokenFile
from data_modules.index.range_cache import RangeCache
from data_modules.index.storage import AT_ONCE, InputFile, fetch, is_remote

MAX_OPEN = 64  # local files kept open by a process
MOST_AHEAD = 256 << 20  # bytes that are on their way; what is more is asked for when it is read

Range = tuple[InputFile, int, int]  # a file, the range's first byte and its bytes


class RangeReader:
    """Reads parts of files. Local files stay open; a process that gets a copy opens its own.

    Args:
        cache: keeps remote ranges on a local disk; None keeps none.
    """

    def __init__(self, cache: RangeCache | None = None) -> None:
        self.cache = cache
        self._open: OrderedDict[str, int] = OrderedDict()
        self._coming: dict[Range, Future[bytes]] = {}
        self._pool: tuple[int, ThreadPoolExecutor] | None = None  # of a process, which its children do not have

    def __getstate__(self) -> dict[str, Any]:
        return {"cache": self.cache}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __del__(self) -> None:
        for handle in self._open.values():
            os.close(handle)

    def ahead(self, file: InputFile, offset: int, size: int) -> None:
        """Have a part of a file on its way that will be read soon. What is wrong with it is said when it is read."""
        if not is_remote(file.path):
            with contextlib.suppress(BrokenFile, OSError):
                os.posix_fadvise(self._handle(file), offset, size, os.POSIX_FADV_WILLNEED)
            return
        pool, wanted = self._threads(), (file, offset, size)
        if wanted not in self._coming and size + sum(one for _, _, one in self._coming) <= MOST_AHEAD:
            self._coming[wanted] = pool.submit(self._remote, *wanted)

    def read(self, file: InputFile, offset: int, size: int) -> bytes:
        """`size` bytes of a file from `offset` on.

        Raises:
            BrokenFile: the file is not there, has changed since it was indexed, or cannot be read.
        """
        try:
            content = self._come(file, offset, size) if is_remote(file.path) else self._pread(file, offset, size)
        except OSError as error:
            reason = "it is no longer there" if isinstance(error, FileNotFoundError) else str(error)
            raise BrokenFile(file.path, reason) from error
        if len(content) != size:
            raise BrokenFile(file.path, f"it ends within the {size} bytes from {offset} on")
        return content

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None or self._pool[0] != os.getpid():
            self._coming = {}
            self._pool = os.getpid(), ThreadPoolExecutor(AT_ONCE)
        return self._pool[1]

    def _come(self, file: InputFile, offset: int, size: int) -> bytes:
        self._threads()
        coming = self._coming.pop((file, offset, size), None)
        return self._remote(file, offset, size) if coming is None else coming.result()

    def _remote(self, file: InputFile, offset: int, size: int) -> bytes:
        content = self.cache.get(file, offset, size) if self.cache else None
        if content is None:
            content = fetch(file.path, offset, size)
            if self.cache:
                self.cache.keep(file, offset, content)
        return content

    def _pread(self, file: InputFile, offset: int, size: int) -> bytes:
        return os.pread(self._handle(file), size, offset)

    def _handle(self, file: InputFile) -> int:
        if file.path not in self._open:
            while len(self._open) >= MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[file.path] = _opened(file)
        self._open.move_to_end(file.path)
        return self._open[file.path]


def _opened(file: InputFile) -> int:
    handle = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    stat = os.fstat(handle)
    if (stat.st_size, str(stat.st_mtime_ns)) != (file.size, file.changed):
        os.close(handle)
        raise BrokenFile(file.path, "it has changed since it was indexed; start again to index it anew")
    return handle

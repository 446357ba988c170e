"""Ranges of remote files that are kept on a local disk, up to a limit.

The caches of fsspec have no limit, or lie in the memory of one process.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from data_modules.index.keys import key_of_texts
from data_modules.index.storage import InputFile

FOLDERS = 1024  # each holds its share of the limit, so that a process looks through one of them alone


class RangeCache:
    """Keeps what was read last. Any number of processes may use one folder.

    Args:
        folder: where it lies.
        limit: bytes of all ranges; a range of more than a 1,024th of them is not kept.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.share = folder, limit // FOLDERS

    def get(self, file: InputFile, offset: int, size: int) -> bytes | None:
        """A range as it was read before, if it is kept."""
        kept = self._path(file, offset, size)
        try:
            content = kept.read_bytes()
            os.utime(kept)
        except OSError:
            return None
        return content if len(content) == size else None

    def keep(self, file: InputFile, offset: int, content: bytes) -> None:
        """Keep a range, in place of those that were not asked for the longest. A full disk keeps nothing."""
        if len(content) > self.share:
            return
        kept = self._path(file, offset, len(content))
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            self._make_room(kept.parent, len(content))
            beside = kept.with_name(f".{os.uname().nodename}-{os.getpid()}-{kept.name}")
            try:
                beside.write_bytes(content)
                beside.replace(kept)
            finally:
                beside.unlink(missing_ok=True)

    def _make_room(self, folder: Path, size: int) -> None:
        with os.scandir(folder) as entries:
            found = [(entry.stat().st_mtime_ns, entry.stat().st_size, entry.path) for entry in entries]
        there = sum(one for _, one, _ in found)
        for _, one, path in sorted(found):
            if there + size <= self.share:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            there -= one

    def _path(self, file: InputFile, offset: int, size: int) -> Path:
        name = key_of_texts([file.path, str(file.size), file.changed, str(offset), str(size)])
        return self.folder / str(int(name, 16) % FOLDERS) / name

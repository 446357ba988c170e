"""Bytes of files, wherever they lie: local disks by pread, remote storages through fsspec, with patience."""

from __future__ import annotations

import io
import os
import random
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any, TypeVar

from data_modules.dataset import BrokenFile

ATTEMPTS = 6  # of a remote read
AT_ONCE = 16  # questions that a process asks a storage at once
FIRST_WAIT = 0.5  # seconds before the second attempt; each later one waits twice as long as the one before
AHEAD = 4 << 20  # bytes of a remote file that are asked for at once where it is read from its start to its end
SILENCE = 30.0  # seconds without a byte, after which an attempt over HTTP has failed
BUSY = (408, 425, 429)  # what a web server answers that another time answers otherwise
# Trying again does not change these.
_FINAL = (FileNotFoundError, PermissionError, NotImplementedError, ImportError, ValueError, TypeError, KeyError)

Item = TypeVar("Item")
Result = TypeVar("Result")


class UnreachedFile(BrokenFile):
    """A remote file that its storage does not give; another time it may."""


@dataclass(frozen=True)
class InputFile:
    """One file that documents are read from, as it was when it was found.

    Args:
        path: an absolute local path, or the URL of a remote file.
        size: in bytes.
        changed: time of the last change in nanoseconds; of a remote file whatever its storage tells instead.
    """

    path: str
    size: int
    changed: str

    @property
    def part(self) -> tuple[int, int]:
        """First byte that is indexed on its own, and the first behind it."""
        return 0, self.size


@dataclass(frozen=True)
class FilePart(InputFile):
    """Some of a file that is indexed on its own: large files are shared out over all cores.

    Args:
        first: byte that it begins at. What documents it holds is for those to say who read it.
        stop: the first byte behind it.
    """

    first: int
    stop: int

    @property
    def part(self) -> tuple[int, int]:
        """See `InputFile.part`."""
        return self.first, self.stop


def parts_of(file: InputFile, size: int) -> list[FilePart]:
    """A file in parts of at most `size` bytes, one of an empty file."""
    starts = range(0, max(1, file.size), size)
    return [FilePart(file.path, file.size, file.changed, at, min(at + size, file.size)) for at in starts]


def is_remote(path: str) -> bool:
    """Whether a path is a URL of fsspec's, such as `s3://bucket/0.tar`."""
    return re.match(r"[a-z][a-z0-9+.-]*://", path) is not None


def filesystem(url: str) -> tuple[Any, str]:
    """Fsspec's file system of a URL, and the path in it. They are cheap to ask for, and belong to one process.

    Raises:
        ImportError: the library of this kind of storage is not installed.
    """
    import fsspec

    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        import aiohttp

        options["client_kwargs"] = {
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
        }
    return fsspec.core.url_to_fs(url, **options)


def patiently(attempt: Callable[[], Result], what: str) -> Result:
    """The result of `attempt`, which is tried again where a storage fails for the moment.

    Args:
        attempt: asks a remote storage.
        what: is asked for, for the error message.

    Raises:
        FileNotFoundError: there is no such file.
        UnreachedFile: the last attempt failed too.
    """
    for number in range(ATTEMPTS):
        try:
            return attempt()
        except Exception as raised:  # storages have exceptions of their own
            if not (error := _passing(raised)):
                raise
            if number == ATTEMPTS - 1:
                reason = f"{type(error).__name__} {error}".strip()
                raise UnreachedFile(what, f"{ATTEMPTS} attempts failed, the last with {reason}") from error
            time.sleep(FIRST_WAIT * 2**number * random.uniform(0.5, 1))  # spread, as many ranks ask at once
    raise AssertionError


def _passing(error: Exception) -> Exception | None:
    """What is wrong for the moment, or None if trying again does not change it.

    Fsspec says of every failure of a web server, while a file is looked up, that there is no such file.
    """
    reason = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(reason, Exception) and _of_the_web(reason):
        status = getattr(reason, "status", None)
        return None if status and status < 500 and status not in BUSY else reason
    return None if isinstance(error, _FINAL) else error


def _of_the_web(reason: Exception) -> bool:
    import aiohttp

    return isinstance(reason, (aiohttp.ClientError, TimeoutError))


def fetch(url: str, offset: int, size: int) -> bytes:
    """Some bytes of a remote file, asked for with patience.

    Raises:
        FileNotFoundError: there is no such file.
        UnreachedFile: the last attempt failed too.
    """

    def attempt() -> bytes:
        fs, path = filesystem(url)
        content = fs.cat_file(path, start=offset, end=offset + size)
        if len(content) != size:
            raise OSError(f"{len(content)} of {size} bytes came")
        return content

    return patiently(attempt, url)


def ask_each(ask: Callable[[Item], Result], items: Sequence[Item], path: str) -> list[Result]:
    """What `ask` says of each item, in their order.

    Args:
        ask: looks one up.
        items: of a source.
        path: of the source; a storage is asked for several items at once, as it takes long to answer.
    """
    if not is_remote(path) or len(items) < 2:
        return [ask(item) for item in items]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(ask, items))


def content_of(file: InputFile) -> bytes:
    """All bytes of a file, asked for at once.

    Raises:
        OSError: it can't be opened.
        UnreachedFile: its storage does not give it.
    """

    def attempt() -> bytes:
        fs, path = filesystem(file.path)
        content: bytes = fs.cat_file(path)
        return content

    if is_remote(file.path):
        return patiently(attempt, file.path)
    with open(file.path, "rb") as stream:
        return stream.read()


class _RemoteStream(io.RawIOBase):
    """A remote file, every part of which is asked for with patience."""

    def __init__(self, file: InputFile) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._file.size - self._at))
        if count:
            buffer[:count] = fetch(self._file.path, self._at, count)
        self._at += count
        return count


def opened(file: InputFile, ahead: int = AHEAD) -> IO[bytes]:
    """A file to be read from its start to its end.

    Args:
        file: which.
        ahead: bytes that are asked for at once of a remote file.

    Raises:
        OSError: it can't be opened.
    """
    if is_remote(file.path):
        return io.BufferedReader(_RemoteStream(file), ahead)
    return open(file.path, "rb")

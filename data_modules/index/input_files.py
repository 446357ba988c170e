"""The files that a path names, on local disks and on any storage that fsspec knows."""

from __future__ import annotations

from collections.abc import Sequence
from glob import has_magic
from pathlib import Path
from typing import Any

from data_modules.index.storage import InputFile, UnreachedFile, ask_each, filesystem, is_remote, patiently
from data_modules.reading.files import find_files, has_suffix, listed, spread_range
from data_modules.reading.findings import note_files
from data_modules.reading.walking import is_hidden_path
from lit_mm.mistake import MissingFile, Mistake

# What storages call the identity of a file's contents, or the time of its last change.
_CHANGED = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")


def find_input_files(pattern: str, suffixes: Sequence[str], key: str, beside: Sequence[str] = ()) -> list[InputFile]:
    """Files behind a path as a user writes it, sorted by name.

    Args:
        pattern: a file, a folder (searched with its subfolders), a glob, or a range such as `{00000..01023}.tar`, which
            storages that can't be listed need. A URL such as `s3://bucket/folder` is read through fsspec.
        suffixes: endings that a source of this kind can read, with their dots.
        key: the YAML key, for the error message.
        beside: endings of files that lie beside these and belong to them.

    Raises:
        MissingFile: nothing is there, or nothing that can be read.
        Mistake: the storage can't be reached, or its library is not installed.
    """
    if not is_remote(pattern):
        return [local_file(path) for path in find_files(pattern, suffixes, key, beside)]
    named = ask_each(lambda one: _find_remote(one, suffixes, key), list(spread_range(pattern)), pattern)
    found = [file for files in named for file in files]
    note_files(pattern, len(found), {})
    return sorted(found, key=lambda file: file.path)


def _find_remote(pattern: str, suffixes: Sequence[str], key: str) -> list[InputFile]:
    try:
        fs, path = filesystem(pattern)
        found = patiently(lambda: _infos(fs, path, suffixes), pattern)
    except UnreachedFile as error:
        raise Mistake(f"{key}: '{pattern}' cannot be looked up: {error.reason}") from error
    except (ImportError, ValueError) as error:
        raise Mistake(f"{key}: '{pattern}' cannot be read here: {error}") from error
    except FileNotFoundError as error:
        raise MissingFile(f"{key}: there is no file or folder '{pattern}'") from error
    if not found:
        others = "; other kinds are read from this machine, so copy them here"
        raise MissingFile(f"{key}: '{pattern}' holds no {listed(suffixes)} file{others}")
    return [_remote_file(fs, info) for info in found]


def local_file(path: Path) -> InputFile:
    """A file of this machine as it is now."""
    stat = path.stat()
    return InputFile(str(path.absolute()), stat.st_size, str(stat.st_mtime_ns))


def remote_file(url: str) -> InputFile | None:
    """A file of a storage as it is now, or None if there is none.

    Raises:
        UnreachedFile: the storage fails.
        Mistake: it does not say how large the file is.
    """
    fs, path = filesystem(url)
    try:
        return _remote_file(fs, patiently(lambda: fs.info(path), url))
    except (FileNotFoundError, PermissionError):  # S3 forbids what is not there to those who may not list
        return None


def found_in(url: str, ending: str) -> list[InputFile]:
    """Files of a remote folder with this ending, as they are now; none where there is no such folder.

    Raises:
        UnreachedFile: the storage fails.
        ImportError: its library is not installed.
    """
    fs, path = filesystem(url)
    fs.invalidate_cache()
    try:
        infos = patiently(lambda: fs.find(path, maxdepth=1, detail=True), url).values()
    except FileNotFoundError:
        return []
    named = [info for info in infos if info["name"].endswith(ending) and info["type"] == "file"]
    return [_remote_file(fs, info) for info in named]


def _infos(fs: Any, path: str, suffixes: Sequence[str]) -> list[dict[str, Any]]:
    if has_magic(path):
        infos = list(fs.glob(path, detail=True).values())
    elif has_suffix(Path(path), suffixes):
        infos = [fs.info(path)]
    else:
        folder = str(fs._strip_protocol(path)).rstrip("/")
        everything = fs.find(path, detail=True).values()
        infos = [info for info in everything if not is_hidden_path(info["name"].removeprefix(folder).lstrip("/"))]
    return [info for info in infos if info["type"] == "file" and has_suffix(Path(info["name"]), suffixes)]


def _remote_file(fs: Any, info: dict[str, Any]) -> InputFile:
    url = fs.unstrip_protocol(info["name"])
    if info.get("size") is None:  # listings of HTTP servers are names alone
        info = patiently(lambda: fs.info(info["name"]), url)
    if info.get("size") is None:
        raise Mistake(f"'{url}' has no known size; the server has to answer with Content-Length and byte ranges")
    changed = next((str(info[name]) for name in _CHANGED if info.get(name)), "")
    return InputFile(url, int(info["size"]), changed)

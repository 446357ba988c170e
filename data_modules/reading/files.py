"""Finding the files a user names, and what happens to those that turn out broken before the first step."""

from __future__ import annotations

import glob
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from data_modules.dataset import BrokenFile
from lit_mm.mistake import MissingFile, Mistake

logger = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]
MOST_LOST = 0.01  # share of a source that may be lost under `on_error: skip`


def find_files(pattern: str, suffixes: Sequence[str], key: str) -> list[Path]:
    """Files behind a path as a user writes it, sorted by name.

    Args:
        pattern: a file, a folder (searched with its subfolders) or a glob such as `data/*/part-*.jsonl`.
        suffixes: endings that a source of this kind can read, with their dots.
        key: the YAML key, for the error message.

    Raises:
        MissingFile: nothing is there, or nothing that can be read.
    """
    path = Path(pattern).expanduser()
    if path.is_dir():
        found = sorted(f for f in path.rglob("*") if f.is_file() and has_suffix(f, suffixes))
    elif path.is_file():
        found = [path]
    else:
        found = sorted(Path(f) for f in glob.glob(str(path), recursive=True) if has_suffix(Path(f), suffixes))
        if not found and not glob.has_magic(pattern):
            raise MissingFile(f"{key}: there is no file or folder '{pattern}'")
    if not found:
        raise MissingFile(f"{key}: '{pattern}' holds no {listed(suffixes)} file")
    if not has_suffix(found[0], suffixes):
        raise MissingFile(f"{key}: '{pattern}' is not a {listed(suffixes)} file")
    return found


def has_suffix(path: Path, suffixes: Sequence[str]) -> bool:
    """Whether the file's name ends in one of `suffixes`, in any case; hidden files never do."""
    return path.name.lower().endswith(tuple(suffixes)) and not path.name.startswith(".")


def listed(words: Sequence[str], last: str = "or") -> str:
    """`a, b or c`."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def stamp(files: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    """(path, bytes, time of last change) of every file: what a cached result depends on."""
    return tuple((str(f), (s := f.stat()).st_size, s.st_mtime_ns) for f in files)


def settle_broken(broken: Sequence[BrokenFile], total: int, key: str, on_error: OnError) -> int:
    """Apply `on_error` to what was found broken while a source was set up.

    Args:
        broken: what cannot be read.
        total: documents (or files) in all, the broken ones included.
        key: the YAML key, for the message.
        on_error: end the run, or go on without.

    Returns:
        How many were left out.

    Raises:
        BrokenFile: `on_error` is `raise` and there is a broken one; the first is named.
        Mistake: more than 1 % is broken.
    """
    if not broken:
        return 0
    if on_error == "raise":
        raise broken[0]
    if len(broken) > MOST_LOST * total:
        raise Mistake(
            f"{key}: {len(broken)} of {total} cannot be read, more than 1 %; the first is {broken[0]}"
        ) from broken[0]
    logger.warning("%s: left out %d of %d that cannot be read; the first is %s", key, len(broken), total, broken[0])
    return len(broken)

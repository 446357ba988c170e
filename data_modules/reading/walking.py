"""The files below a folder: links are followed, each file is read once, and what is not looked at is counted."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

TOOL_MADE = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")  # folders that hold no data of a user's

NOWHERE = "links that lead nowhere"
NO_FILES = "pipes or devices"


@dataclass
class Walk:
    """What was found below a folder.

    Attributes:
        files: with a wanted ending, sorted by name.
        left_out: how many of what is not among them.
    """

    files: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name was made by a tool, or is not to be seen."""
    return name.startswith(".") or name in TOOL_MADE


def is_hidden_path(path: str) -> bool:
    """Whether a path below some folder, or one of the folders on the way to it, is hidden."""
    return any(map(is_hidden, PurePath(path).parts))


def walk(folder: Path, suffixes: Sequence[str], beside: Sequence[str] = ()) -> Walk:
    """Look through a folder and its subfolders, linked ones included, each once.

    Args:
        folder: where to look.
        suffixes: endings that are wanted, in lower case, with their dots.
        beside: endings of files that belong to these and are not counted as left out.
    """
    found = Walk()
    seen: set[str] = set()
    waiting = [folder]
    while waiting:  # links come after all real folders, so that a file has its own name where it has one
        links: list[Path] = []
        for start in sorted(waiting):
            if os.path.realpath(start) in seen:
                found.left_out["linked folders that were read before"] += 1
                continue
            for inside, names in _folders(start, seen, links, found.left_out):
                _sort_out(inside, names, tuple(suffixes), tuple(beside), found)
        waiting = links
    found.files.sort()
    return found


def _folders(
    start: Path, seen: set[str], links: list[Path], left_out: Counter[str]
) -> Iterator[tuple[Path, list[str]]]:
    for name, folders, files in os.walk(start):
        seen.add(os.path.realpath(name))
        inside = Path(name)
        shown = [folder for folder in folders if not is_hidden(folder)]
        if hidden := len(folders) - len(shown):
            left_out["hidden folders"] += hidden
        links += [inside / folder for folder in shown if (inside / folder).is_symlink()]
        folders[:] = [folder for folder in shown if not (inside / folder).is_symlink()]
        yield inside, files


def _sort_out(folder: Path, names: list[str], suffixes: tuple[str, ...], beside: tuple[str, ...], found: Walk) -> None:
    for name in names:
        lower = name.lower()
        if not lower.endswith(suffixes):
            if not is_hidden(name) and not (beside and lower.endswith(beside)):
                nowhere = (folder / name).is_symlink() and not (folder / name).exists()
                found.left_out[NOWHERE if nowhere else PurePath(lower).suffix or "files without an ending"] += 1
        elif is_hidden(name):
            found.left_out["hidden files"] += 1
        elif (folder / name).is_file():
            found.files.append(folder / name)
        else:
            found.left_out[NOWHERE if (folder / name).is_symlink() else NO_FILES] += 1


def once(files: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Of several names of one file, by symbolic or hard links, the one that is no link, or else the first.

    Returns:
        A name of every file, and the other names, both sorted.
    """
    kept: dict[object, Path] = {}
    others: list[Path] = []
    for file in sorted(files, key=lambda file: (file.is_symlink(), file)):
        stat = file.stat()
        linked = stat.st_nlink > 1  # else numbers of files are not asked, which not every network disk keeps apart
        identity = (stat.st_dev, stat.st_ino, stat.st_size) if linked else os.path.realpath(file)
        if kept.setdefault(identity, file) is not file:
            others.append(file)
    return sorted(kept.values()), sorted(others)


def as_stored(path: Path) -> Path:
    """A path as its file system has it, where letters with accents may be written as one character or as two."""
    if path.exists():
        return path
    forms = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((form for form in forms if form.exists()), path)


def matching(pattern: str) -> list[str]:
    """Paths that match a pattern. A folder that is there by its very name, such as `books [2023]`, is no pattern."""
    path = Path(pattern)
    there = Path(path.anchor)
    parts = path.parts[1:] if path.anchor else path.parts
    known = 0
    while known < len(parts) and (there / parts[known]).exists():
        there /= parts[known]
        known += 1
    return glob.glob(str(Path(glob.escape(str(there)), *parts[known:])), recursive=True)

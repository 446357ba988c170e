"""Finding the files a user names, and what happens to those that turn out broken before the first step."""

from __future__ import annotations

import glob
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities import rank_zero_only

from data_modules.dataset import BrokenFile
from data_modules.reading.findings import note_files, note_lost
from data_modules.reading.walking import NOWHERE, as_stored, is_hidden, matching, once, walk
from lit_mm.mistake import MissingFile, Mistake

logger = logging.getLogger(__name__)


@rank_zero_only
def say(message: str, *values: object) -> None:
    """Tell what every rank finds."""
    logger.info(message, *values)


@rank_zero_only
def warn(message: str, *values: object) -> None:
    """Warn of what every rank finds."""
    logger.warning(message, *values)


HUB = "hf://"  # what a name on the Hugging Face Hub begins with
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
OnError = Literal["raise", "skip"]
Stamps = tuple[tuple[str, int, int | str], ...]  # see `stamp`; remote storages tell a change in other ways


@dataclass(frozen=True)
class Tolerance:
    """What happens to documents that cannot be read.

    Args:
        on_error: the first ends the run (`raise`), or they are left out (`skip`).
        max_lost: with `skip`, the share of a source that may be left out.
    """

    on_error: OnError = "raise"
    max_lost: float = 0.01


def spread_range(pattern: str) -> Iterator[str]:
    """Every path of a pattern with ranges `{first..last}`, whose numbers keep the width of the first.

    Raises:
        Mistake: the last number of a range is below the first.
    """
    found = _RANGE.search(pattern)
    if found is None:
        yield pattern
        return
    first, last = found.groups()
    if int(last) < int(first):
        raise Mistake(f"'{pattern}' has a range that ends before it begins; write {{{last}..{first}}}")
    for number in range(int(first), int(last) + 1):
        yield from spread_range(f"{pattern[: found.start()]}{number:0{len(first)}d}{pattern[found.end() :]}")


def find_files(pattern: str, suffixes: Sequence[str], key: str, beside: Sequence[str] = ()) -> list[Path]:
    """Files behind a path as a user writes it, sorted by name, each file once. What is left out is noted.

    Args:
        pattern: a file, a folder (searched with its subfolders, linked ones too, but for hidden ones), a glob such as
            `data/*/part-*.jsonl`, or a range such as `data/{00000..01023}.tar`, whose files all have to be there.
        suffixes: endings that a source of this kind can read, with their dots.
        key: the YAML key, for the error message.
        beside: endings of files that lie beside these and belong to them.

    Raises:
        MissingFile: nothing is there, or nothing that can be read.
        Mistake: nothing is named, or a range has no number.
    """
    if not pattern.strip():
        raise Mistake(f"{key} is empty; name a file or folder, or a pattern of them")
    found: set[Path] = set()
    left_out: Counter[str] = Counter()
    for one in spread_range(pattern):
        files, others = _find(one, suffixes, key, beside)
        found.update(files)
        left_out.update(others)
    files, again = once(found)
    if again:
        left_out["other names of files that are read"] += len(again)
        warn(
            "%s: %d names in '%s' are links to files that are read, the first is '%s'; each file is read once (a "
            "larger weight reads it more often)",
            key,
            len(again),
            pattern,
            again[0],
        )
    note_files(pattern, len(files), left_out)
    if count := left_out[NOWHERE]:
        warn("%s: %d links in '%s' lead nowhere and are left out", key, count, pattern)
    return files


def _find(pattern: str, suffixes: Sequence[str], key: str, beside: Sequence[str]) -> tuple[list[Path], Counter[str]]:
    path = as_stored(Path(pattern).expanduser())
    left_out: Counter[str] = Counter()
    if path.is_dir():
        walked = walk(path, suffixes, beside)
        found, left_out = walked.files, walked.left_out
    elif path.is_file():
        found = [path]
    else:
        matched = [Path(name) for name in matching(str(path))]
        found = sorted(f for f in matched if has_suffix(f, suffixes))
        left_out.update(f.suffix.lower() for f in matched if f.suffix and not has_suffix(f, (*suffixes, *beside)))
        if not found and not glob.has_magic(pattern):
            raise MissingFile(f"{key}: there is no file or folder '{pattern}'")
    if not found:
        others = f", but {listed([f'{n} {what}' for what, n in left_out.items()], 'and')}" if left_out else ""
        raise MissingFile(f"{key}: '{pattern}' holds no {listed(suffixes)} file{others}")
    if not has_suffix(found[0], suffixes):
        raise MissingFile(f"{key}: '{pattern}' is not a {listed(suffixes)} file")
    return found, left_out


def has_suffix(path: Path, suffixes: Sequence[str]) -> bool:
    """Whether the file's name ends in one of `suffixes`, in any case; hidden files never do."""
    return path.name.lower().endswith(tuple(suffixes)) and not is_hidden(path.name)


def is_on_hub(path: str, suffixes: Sequence[str]) -> bool:
    """Whether a path names a data set of the Hub, and not files there, which end in one of `suffixes`."""
    return path.startswith(HUB) and not path.lower().endswith(tuple(suffixes))


def listed(words: Sequence[str], last: str = "or") -> str:
    """`a, b or c`."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def stamp(files: Sequence[Path]) -> Stamps:
    """(path, bytes, time of last change) of every file: what a cached result depends on."""
    return tuple((str(f), (s := f.stat()).st_size, s.st_mtime_ns) for f in files)


def total_size(stamps: Stamps) -> int:
    """Bytes of all files."""
    return sum(size for _, size, _ in stamps)


def settle_broken(first: BrokenFile | None, count: int, total: int, key: str, tolerance: Tolerance) -> int:
    """Decide about what was found broken while a source was set up.

    Args:
        first: of what cannot be read; None if all can.
        count: how many cannot be read.
        total: documents (or files) in all, the broken ones included.
        key: the YAML key, for the message.
        tolerance: end the run, or go on without so many.

    Returns:
        How many were left out.

    Raises:
        BrokenFile: nothing is left out, and there is a broken one; the first is named.
        Mistake: more are broken than may be left out.
    """
    note_lost("unreadable", count)
    if first is None:
        return 0
    if tolerance.on_error == "raise":
        raise first
    if count > tolerance.max_lost * total:
        raise Mistake(
            f"{key}: {count} of {total} cannot be read, more than {100 * tolerance.max_lost:g} % "
            f"(data.loader.max_lost); the first is {first}"
        ) from first
    warn("%s: left out %d of %d that cannot be read; the first is %s", key, count, total, first)
    return count

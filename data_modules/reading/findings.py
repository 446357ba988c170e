"""What is found while a source is opened: files, what is left out and why, and the caches that are made or used."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Findings:
    """Of one split of one source.

    Attributes:
        looked: by what was looked for, how many files are read, and how many of what are not.
        lost: how many of what cannot be used, by the reason, such as `unreadable`.
        caches: when each cache that is used was made, in seconds since 1970.
        began: when this was begun to be gathered; a younger cache was made for it.
    """

    looked: dict[str, tuple[int, Counter[str]]] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    caches: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.time)

    @property
    def files(self) -> int:
        """How many are read."""
        return sum(count for count, _ in self.looked.values())

    @property
    def left_out(self) -> Counter[str]:
        """How many of what are left out, by the reason."""
        return sum((left_out for _, left_out in self.looked.values()), Counter()) + self.lost


_current: ContextVar[Findings | None] = ContextVar("findings", default=None)


@contextmanager
def gathered() -> Iterator[Findings]:
    """Gather what is noted within."""
    findings = Findings()
    token = _current.set(findings)
    try:
        yield findings
    finally:
        _current.reset(token)


def note_files(pattern: str, count: int, left_out: Mapping[str, int]) -> None:
    """Files behind a path.

    Args:
        pattern: the path as the user writes it; when it is looked for again, what is noted last holds.
        count: files that are read.
        left_out: how many of what are not.
    """
    if (findings := _current.get()) is not None:
        findings.looked[pattern] = count, Counter(left_out)


def note_lost(what: str, count: int) -> None:
    """Documents or files that cannot be used."""
    if (findings := _current.get()) is not None:
        findings.lost[what] += count


def note_cache(file: Path) -> None:
    """A cache that is used, as it is when it is there."""
    if (findings := _current.get()) is not None:
        findings.caches.append(file.stat().st_mtime)

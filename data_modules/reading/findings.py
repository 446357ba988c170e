"""What is found while a source is opened: files, what is left out and why, and the caches that are made or used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class Findings:
    """Of one split of one source.

    Attributes:
        looked: by what was looked for, how many files are read, and how many of what are not.
        lost: how many of what cannot be used, by the reason, such as `unreadable`.
        made: caches that were made now.
        reused: when each cache that was used again was made, in seconds since 1970.
    """

    looked: dict[str, tuple[int, Counter[str]]] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    made: int = 0
    reused: list[float] = field(default_factory=list)

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


def note_cache(made: float | None) -> None:
    """A cache that is used.

    Args:
        made: when it was made, in seconds since 1970; None if it is made now.
    """
    if (findings := _current.get()) is None:
        return
    if made is None:
        findings.made += 1
    else:
        findings.reused.append(made)

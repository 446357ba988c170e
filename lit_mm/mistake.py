"""What is the user's to put right, told apart from what is ours."""

from __future__ import annotations

import errno
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_ROOM, _LEAVE, _LIMIT = (
    "make room, or write elsewhere",
    "allow it, or name another place",
    "raise the limit (ulimit -n)",
)
_REFUSALS = {errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.EACCES: _LEAVE, errno.EPERM: _LEAVE, errno.EROFS: _LEAVE}
_REFUSALS |= dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n)")


class Mistake(ValueError):
    """A configuration, a file or a request that cannot be used.

    The program ends with its text alone: one sentence with the YAML key or the file, what was found there, and what
    would be right. Any other exception is taken for a fault of the program and keeps its traceback.
    """

    @property
    def sentence(self) -> str:
        """What the user reads; a data worker's process passes it on as the end of a traceback."""
        text, own = str(self).strip(), f"{type(self).__module__}.{type(self).__qualname__}: "
        return text.rpartition(own)[2] if text.startswith("Caught ") else text


class MissingFile(Mistake, FileNotFoundError):
    """A file or folder that is named but not there."""


def name_of(thing: object) -> str:
    """The class of an object as it is named in YAML."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def mistake_in(error: BaseException | None) -> Mistake | None:
    """The mistake that an error is, or that a library raised it from (`raise … from …`); None if it is a fault of ours.

    What was merely being handled when the error came up does not count: a fault in a handler is a fault.
    """
    while error is not None and not isinstance(error, Mistake):
        error = error.__cause__
    return error


def killed_worker(error: BaseException | None) -> str | None:
    """What the user reads where the system has killed a process that reads data; None of any other error."""
    while error is not None:
        if found := re.search(r"DataLoader worker .* killed by signal: ([^.]*)", str(error)):
            number = next((int(n) for n in signal.valid_signals() if signal.strsignal(n) == found[1]), 0)
            why: dict[int, str] = {signal.SIGKILL: ", out of memory?", signal.SIGBUS: ", out of shared memory?"}
            return (
                f"a data worker was killed by signal {number} ({found[1]}{why.get(number, '')}); "
                "where memory is short, lower data.loader.workers"
            )
        error = error.__cause__ or error.__context__
    return None


def lost_process(error: BaseException | None) -> str | None:
    """What the user reads where another process of the run no longer answers; None of any other error."""
    silence = re.compile(r"(?:gloo|NCCL).*?(Connection \w+ by (?:remote )?peer|Timed out waiting \d+ms)", re.DOTALL)
    while error is not None:
        if found := silence.search(str(error)):
            return (
                f"another process of this run no longer answers ({found[1]}); if it has ended, what it wrote says why"
            )
        error = error.__cause__ or error.__context__
    return None


def refused_by_system(error: BaseException) -> str | None:
    """What the user reads where the system lets nothing be written or opened any more; None of any other error."""
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error):  # `tempfile` says so
        return "there is no folder that temporary files can be written to; make room, or name one with TMPDIR"
    if isinstance(error, UnicodeEncodeError) and error.encoding == "ascii" == sys.getfilesystemencoding():
        return f"'{error.object}' cannot be named in this locale, which knows ASCII alone; set PYTHONUTF8=1"
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return None
    where = f"'{error.filename}'" if error.filename is not None else "a file"
    return f"{where} cannot be used: {error.strerror}; {_REFUSALS[error.errno]}"


def add_note(error: BaseException, text: str) -> None:
    """Have `text` printed below the error, be it a traceback or a sentence."""
    if sys.version_info < (3, 11):
        error.__notes__ = [*notes_of(error), text]  # type: ignore[attr-defined]
    else:
        error.add_note(text)


def notes_of(error: BaseException) -> list[str]:
    """What `add_note` has added."""
    return list(getattr(error, "__notes__", ()))


@contextmanager
def ends_with_a_sentence() -> Iterator[None]:
    """End the program with exit code 1 and one sentence where there is a mistake within."""
    try:
        yield
    except Exception as error:
        if (mistake := mistake_in(error)) is None:
            raise
        sys.exit(f"error: {mistake.sentence}")


@contextmanager
def from_extra(extra: str, purpose: str) -> Iterator[None]:
    """A library that is imported within is installed with an extra of the package alone.

    Args:
        extra: the extra's name in pyproject.toml.
        purpose: what the library is for, as the start of a sentence.

    Raises:
        Mistake: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise Mistake(f"{purpose} needs {error.name}, which is not installed: pip install 'lit-mm[{extra}]'") from error

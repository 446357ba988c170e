"""Where objects are made of what the configuration says: whose an error is, the user's or the program's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_mm.command_line.causes import OWN, place_of
from lit_mm.mistake import Mistake, mistake_in


def made(kind: type, /, *args: Any, **kwargs: Any) -> Any:
    """An object of a class that a configuration names.

    Args:
        kind: the class.
        args: its arguments.
        kwargs: its arguments by name.

    Raises:
        Mistake: the class belongs to a library and refuses its arguments, or the error is one of a user's own file.
    """
    with in_constructors():
        try:
            return kind(*args, **kwargs)
        except Exception as error:
            if mistake_in(error) is not None or _place(error):
                raise
            of_library = kind.__module__.partition(".")[0] not in OWN
            if of_library or isinstance(error, MisconfigurationException):
                raise Mistake(f"{kind.__name__} refuses its arguments: {' '.join(str(error).split())}") from error
            raise


@contextmanager
def in_constructors() -> Iterator[None]:
    """An error of a user's own file is told with its line; any other is passed on."""
    try:
        yield
    except Exception as error:
        if mistake_in(error) is None and (place := _place(error)):
            raise Mistake(f"{place}; LIT_MM_TRACEBACK=1 shows the whole traceback") from error
        raise


def _place(error: BaseException | None) -> str | None:
    """The line of a user's own file that an error, or what it was raised from, came from; the innermost there is."""
    found = None
    while error is not None:
        found, error = place_of(error) or found, error.__cause__
    return found

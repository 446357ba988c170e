"""What damaged numbers and keys in a file lead to becomes one sentence with its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from data_modules.dataset import BrokenFile
from lit_mm.mistake import Mistake


@contextmanager
def damages_of(path: object) -> Iterator[None]:
    """Numbers that are damaged lead anywhere, and keys that are lead nowhere.

    Args:
        path: of the file, for messages.

    Raises:
        BrokenFile: in place of what they lead to.
    """
    try:
        yield
    except (Mistake, OSError):
        raise
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise BrokenFile(path, f"it is damaged ({type(error).__name__}: {error})") from error

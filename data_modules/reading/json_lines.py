"""Lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from data_modules.reading.files import listed


def strings_of(line: bytes, columns: Sequence[str], optional: Sequence[str] = ()) -> list[str | None]:
    """Strings of a line of JSON.

    Args:
        line: in UTF-8.
        columns: keys of the strings.
        optional: those of them that need not be there.

    Raises:
        ValueError: it is broken; why.
    """
    try:
        entry = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 ({error.reason} at byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"is not a JSON object ({error.msg} at character {error.pos})") from error
    if not isinstance(entry, dict):
        raise ValueError("is not a JSON object")
    for column in columns:
        if column not in entry and column not in optional:
            there = f"there are {listed(list(entry), 'and')}" if entry else "it is empty"
            raise ValueError(f"has no column '{column}'; {there}")
        if not isinstance(entry.get(column), str | None if column in optional else str):
            raise ValueError(f"has no string in '{column}'")
    return [entry.get(column) for column in columns]

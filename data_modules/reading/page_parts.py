"""Pages as JSON holds them: texts are strings, pictures are objects, and a conversation is a list of turns of both."""

from __future__ import annotations

from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Page = list[Any]  # of a conversation [role, [part, ...]] for each turn, of others parts


def picture_part(named: Any) -> dict[str, Any]:
    """A picture of a page: a path, or the column and the number in it of one that is stored in a table.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(named, dict) and "column" in named:
        return named
    named = named.get("path") if isinstance(named, dict) else named
    if not isinstance(named, str) or not named:
        raise ValueError(f"has a picture that is {named!r}; a path is expected")
    if named.startswith(("http://", "https://")):
        raise ValueError(f"has a picture at '{named}'; download it and give its path")
    return {"path": named}

"""Conversations as LLaVA, Cambrian, ShareGPT, chat files and the Cauldron write them, all as the same turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from data_modules.reading.files import listed
from data_modules.reading.page_parts import Page, Role, picture_part

MARK = "<image>"
TURNS = ("conversations", "messages", "texts")  # columns of turns, as LLaVA, chat files and the Cauldron name them
PICTURES = ("image", "images")
NAMES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}


def conversation_of(entry: dict[str, Any]) -> Page:
    """The turns of an entry that can be learned from, up to its last answer; see `turns_of`.

    Raises:
        ValueError: what is wrong with it.
    """
    page = turns_of(entry)
    if not any(role == "assistant" for role, _ in page):
        raise ValueError("has no answer")
    while page[-1][0] != "assistant":
        page.pop()  # a question without an answer teaches nothing
    return page


def turns_of(entry: dict[str, Any]) -> Page:
    """The turns of an entry, each a role and a list of texts and pictures.

    Pictures stand where a text has `<image>`, or where a turn's content lists them; without either they stand before
    the first question.

    Raises:
        ValueError: what is wrong with it.
    """
    turns = [(_role(name, number), content) for number, (name, content) in enumerate(_turns(entry), 1)]
    pictures = [one for name in PICTURES for one in _several(entry.get(name)) if one]
    placed = [_Placed(content) for _, content in turns]
    marks = sum(one.marks for one in placed)
    if marks > len(pictures):
        raise ValueError(f"has {marks} {MARK} marks, but {len(pictures) or 'no'} picture{'s'[: len(pictures) != 1]}")
    if 0 < marks < len(pictures):
        raise ValueError(f"has {len(pictures)} pictures, but {marks} {MARK} mark{'s'[: marks != 1]}")
    waiting = iter(pictures)
    page: Page = [[role, one.parts(waiting)] for (role, _), one in zip(turns, placed, strict=True)]
    if pictures and not marks:
        first = next((turn for turn in page if turn[0] == "user"), None)
        if first is None:
            raise ValueError("has a picture, but no question")
        first[1] = [*map(picture_part, pictures), *first[1]]
    page = [turn for turn in page if turn[0] != "system" or turn[1]]
    for number, (role, parts) in enumerate(page, 1):
        if not parts:
            raise ValueError(f"has an empty {'answer' if role == 'assistant' else 'question'} in turn {number}")
    return page


def _turns(entry: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Names and contents of all turns."""
    column = next((name for name in TURNS if entry.get(name) is not None), None)
    if column is None:
        there = f"there are {listed(list(entry), 'and')}" if entry else "it is empty"
        raise ValueError(f"has none of the columns {listed(TURNS)}; {there}")
    turns = entry[column]
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"has no list of turns in '{column}'")
    if column == "texts":
        return [(name, turn.get(name)) for turn in turns for name in ("user", "assistant")]
    return [
        (turn.get("from") or turn.get("role"), turn.get("content") if turn.get("value") is None else turn["value"])
        for turn in turns
    ]


def _role(name: Any, number: int) -> Role:
    if not isinstance(name, str) or name.lower() not in NAMES:
        raise ValueError(f"has the role {name!r} in turn {number}; known are {listed(list(NAMES), 'and')}")
    return NAMES[name.lower()]


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


class _Placed:
    """The content of a turn: a text in which pictures are marked, or a list of parts.

    Attributes:
        marks: pictures that it takes from those of the entry, in order.
    """

    def __init__(self, content: Any) -> None:
        if content is None or isinstance(content, str):
            pieces = (content or "").split(MARK)
            pieces = pieces if len(pieces) == 1 else [piece.strip() for piece in pieces]
            self._parts: list[Any] = list(chain.from_iterable((None, piece) for piece in pieces))[1:]
        elif isinstance(content, list):
            self._parts = [_part(one) for one in content]
        else:
            raise ValueError(f"has a turn that is {type(content).__name__}; a text or a list of parts is expected")
        self.marks = self._parts.count(None)

    def parts(self, waiting: Iterator[Any]) -> list[Any]:
        """Texts and pictures; those that are marked are the next of `waiting`."""
        filled = [picture_part(next(waiting)) if part is None else part for part in self._parts]
        return [part for part in filled if isinstance(part, dict) or part.strip()]


def _part(part: Any) -> Any:
    """A text, a picture that is named, or None for the entry's next picture."""
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, str) or kind in ("text", "input_text", "output_text"):
        return part if isinstance(part, str) else part.get("text") or ""
    if kind not in ("image", "image_url", "input_image"):
        raise ValueError(f"has a part of the type {kind!r}; known are text, image and image_url")
    named = next((part[name] for name in ("image", "image_url", "path", "url") if part.get(name) is not None), None)
    named = named.get("url") if isinstance(named, dict) else named
    return None if named is None else picture_part(named)

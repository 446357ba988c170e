"""Captions as tars hold them: a text of its own, or a value inside a JSON object."""

from __future__ import annotations

import json
from typing import Any


def decode_text(content: bytes) -> tuple[str, bool]:
    """Text of bytes, and whether they were not UTF-8 and are read as Western European text (Latin-1)."""
    try:
        return content.decode("utf-8-sig"), False
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), True


def caption_in(content: bytes, path: tuple[str, ...]) -> tuple[str, bool]:
    """The caption in a member's bytes.

    Args:
        content: a text, or a JSON object.
        path: keys that lead to the caption in the object; none where the text is the caption.

    Returns:
        The caption without space around it, empty where there is none; and whether it was read as Latin-1.
    """
    text, guessed = decode_text(content)
    if not path:
        return text.strip(), guessed
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return "", False
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return (value.strip(), guessed) if isinstance(value, str) else ("", False)


def object_in(content: bytes) -> dict[str, Any]:
    """The JSON object in a member's bytes; an empty one where there is none."""
    try:
        value = json.loads(decode_text(content)[0])
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}

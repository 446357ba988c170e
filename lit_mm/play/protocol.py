"""Messages between page and server: a JSON header, and behind it the bytes of pictures.

A message without pictures is JSON text. One with pictures is binary: four bytes with the length of the header
(big-endian), the header in JSON, whose `parts` are the lengths of what follows, and that.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lit_mm.mistake import Mistake

MOST_BYTES = 8 * 2**20  # of a message of the page: a dropped picture
MOST_MEGAPIXELS = 16.0  # of the picture
MOST_TEXT = 2000  # characters of a caption, a sentence or a question
MOST_KEYS, LONGEST_KEY = 8, 16
MOST_FRAMES = 100  # for which a sentence holds


@dataclass(frozen=True, eq=False)
class Message:
    """One message.

    Attributes:
        kind: what it is about.
        values: of its header.
        parts: bytes behind it.
    """

    kind: str
    values: dict[str, Any] = field(default_factory=dict)
    parts: tuple[bytes, ...] = ()

    def packed(self) -> str | bytes:
        """As it is sent."""
        header = {"type": self.kind, **self.values}
        if not self.parts:
            return json.dumps(header)
        text = json.dumps({**header, "parts": [len(part) for part in self.parts]}).encode()
        return b"".join([struct.pack(">I", len(text)), text, *self.parts])


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value.strip()) > 0 and len(value) <= MOST_TEXT


def _keys(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MOST_KEYS
        and all(isinstance(key, str) and len(key) <= LONGEST_KEY for key in value)
    )


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: value in names


# What a page may say: values of each kind of message, how they are checked, and what is wanted.
Rule = tuple[Callable[[Any], bool], str]
TEXT: Rule = (_text, f"a text of at most {MOST_TEXT} characters")
SETTINGS: Rule = (lambda value: isinstance(value, dict) and len(value) <= 8, "settings by name")
KINDS: dict[str, dict[str, Rule]] = {
    "keys": {"keys": (_keys, f"a list of at most {MOST_KEYS} keys")},
    "set": {"values": SETTINGS},
    "time": {"mode": (_one_of("held", "always", "paused"), "held, always or paused")},
    "say": {"text": TEXT, "frames": (_whole(1, MOST_FRAMES), f"a whole number from 1 to {MOST_FRAMES}")},
    "reset": {"to": (_one_of("place", "data", "drawn"), "place, data or drawn")},
    "draw": {"text": TEXT, "values": SETTINGS},
    "describe": {"text": (lambda value: value == "" or _text(value), f"a question of at most {MOST_TEXT} characters")},
    "picture": {"for": (_one_of("walk", "describe"), "walk or describe")},
    "seen": {},
    "step": {},
    "undo": {},
    "truth": {},
    "stop": {},
    "save": {},
}


def read(raw: str | bytes) -> Message:
    """A message of a page.

    Raises:
        Mistake: it is none.
    """
    parts: tuple[bytes, ...] = ()
    try:
        if isinstance(raw, bytes):
            (length,) = struct.unpack_from(">I", raw)
            text = raw[4 : 4 + length].decode()
            parts = (raw[4 + length :],)
        else:
            text = raw
        values = json.loads(text)
        kind = values.pop("type")
        rules = KINDS[kind]
    except (ValueError, struct.error, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise Mistake("a message of the page cannot be read; load the page again") from error
    if values.keys() != rules.keys():
        raise Mistake(f"a message '{kind}' has {_listed(values)}; it has to have {_listed(rules)}")
    for name, (fits, wanted) in rules.items():
        if not fits(values[name]):
            raise Mistake(f"{name} of '{kind}' is {str(values[name])[:80]!r}; give {wanted}")
    if (kind == "picture") != bool(parts):
        raise Mistake(f"a message '{kind}' came {'with' if parts else 'without'} a picture")
    return Message(kind, values, parts)


def _listed(names: Sequence[str] | dict[str, Any]) -> str:
    return ", ".join(str(name)[:40] for name in list(names)[:8]) or "nothing"

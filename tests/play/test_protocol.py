"""Messages of a page are what they say they are, or are refused in a sentence."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from lit_mm.mistake import Mistake
from lit_mm.play.protocol import MOST_TEXT, Message, read
from lit_mm.play.settings import Settings


def binary(header: dict[str, Any], payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack(">I", len(text)) + text + payload


def test_a_message_is_read() -> None:
    found = read('{"type": "say", "text": "step up", "frames": 3}')
    assert (found.kind, found.values, found.parts) == ("say", {"text": "step up", "frames": 3}, ())
    dropped = read(binary({"type": "picture", "for": "walk"}, b"\x89PNG"))
    assert dropped.parts == (b"\x89PNG",)


def test_pictures_lie_behind_the_header() -> None:
    packed = Message("view", {"number": 2}, (b"first", b"second one")).packed()
    assert isinstance(packed, bytes)
    (length,) = struct.unpack(">I", packed[:4])
    header = json.loads(packed[4 : 4 + length])
    assert header == {"type": "view", "number": 2, "parts": [5, 10]}
    assert packed[4 + length :] == b"firstsecond one"
    assert json.loads(Message("error", {"text": "no"}).packed()) == {"type": "error", "text": "no"}


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("", "cannot be read"),
        ("[]", "cannot be read"),
        ("7", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"type": "open", "path": "/etc/passwd"}', "cannot be read"),
        ('{"type": ["keys"]}', "cannot be read"),
        ('{"type": "undo", "path": "/etc/passwd"}', "'undo' has path; it has to have nothing"),
        ('{"type": "keys", "keys": "W"}', "list of at most 8 keys"),
        ('{"type": "keys", "keys": ["WWWWWWWWWWWWWWWWWWWWWWWWWWW"]}', "list of at most 8 keys"),
        (json.dumps({"type": "keys", "keys": ["W"] * 9}), "list of at most 8 keys"),
        ('{"type": "say", "text": "up", "frames": 1000000}', "whole number from 1 to 100"),
        ('{"type": "say", "text": "up", "frames": true}', "whole number from 1 to 100"),
        ('{"type": "say", "text": "  ", "frames": 1}', "a text of at most"),
        (json.dumps({"type": "draw", "text": "a" * (MOST_TEXT + 1), "values": {}}), "a text of at most"),
        ('{"type": "time", "mode": "backwards"}', "held, always or paused"),
        ('{"type": "time", "mode": ["held"]}', "held, always or paused"),
        ('{"type": "picture", "for": "walk"}', "without a picture"),
        (b"", "cannot be read"),
        (b"\xff\xff\xff\xff{}", "cannot be read"),
        (b"\x00\x00\x00\x02\xff\xff", "cannot be read"),
        (binary({"type": "undo"}, b"picture"), "with a picture"),
        (binary({"type": "picture", "for": "/etc/passwd"}, b"picture"), "walk or describe"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(raw: str | bytes, sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        read(raw)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"steps": 0}, "steps is 0; give a whole number from 1 to 50"),
        ({"steps": 2.5}, "steps is 2.5; give a whole number"),
        ({"steps": True}, "steps is True"),
        ({"noise": float("nan")}, "noise is nan; give a number from 0 to 1.5"),
        ({"guidance": "3"}, "guidance is '3'"),
        ({"seed": 2**40}, "seed is"),
        ({"method": "heun"}, "there is no setting 'method', but steps, guidance, noise, seed, pace"),
    ],
)
def test_settings_out_of_range_are_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        Settings().changed(given)


def test_settings_are_changed_one_by_one() -> None:
    changed = Settings().changed({"guidance": 3, "seed": 7.0})
    assert changed.prompt == {
        "seed": 7, "method": "euler", "steps": 10, "guidance_scale": 3.0, "noise_scale": 1.0
    }  # fmt: skip
    assert isinstance(changed.prompt["guidance_scale"], float)
    assert isinstance(changed.seed, int)

"""Damaged bytes: cut, flipped, zeroed, repeated, taken out and exchanged, the same for the same seed."""

from __future__ import annotations

import random


def damaged(content: bytes, seed: int) -> bytes:
    """One or two damages somewhere in a file's bytes."""
    rng = random.Random(seed)
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2))):
        if not data:
            break
        at = rng.randrange(min(len(data), 64)) if rng.random() < 0.3 else rng.randrange(len(data))  # headers are short
        length = rng.choice((1, 1, 4, 16, 64, 512))
        kind = rng.choice(("cut", "flip", "zero", "noise", "repeat", "out", "most"))
        if kind == "cut":
            del data[at:]
        elif kind == "flip":
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "repeat":
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
        elif kind == "out":
            del data[at : at + length]
        else:
            size = min(length, len(data) - at)
            data[at : at + size] = {
                "zero": bytes(size),
                "noise": rng.randbytes(size),
                "most": b"\xff" * size,  # the largest number, where it is one
            }[kind]
    return bytes(data)

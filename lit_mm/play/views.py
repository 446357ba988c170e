"""What a page is told."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Any

import numpy as np
from PIL import Image

from lit_mm.play.game import Game
from lit_mm.play.protocol import MOST_FRAMES, MOST_TEXT, Message
from lit_mm.play.settings import RANGES, WHOLE, Settings
from lit_mm.play.truth import Truth
from lit_mm.play.walk import Walk


def hello(game: Game, truth: Truth | None) -> Message:
    """What there is to play with."""
    return Message(
        "hello",
        {
            "model": game.name,
            "size": game.model.image_size,
            "walks": game.walks is not None,
            "keys": list(game.steering.keys) if game.steering else [],
            "truth": truth.name if truth else None,
            "data": bool(game.episodes),
            "ranges": {name: {"low": a, "high": b, "whole": name in WHOLE} for name, (a, b) in RANGES.items()},
            "settings": asdict(game.settings),
            "drawing": asdict(game.drawing),
            "most_frames": MOST_FRAMES,
            "most_text": MOST_TEXT,
        },
    )


def state(settings: Settings, mode: str) -> Message:
    """How it is played."""
    return Message("state", {"settings": asdict(settings), "mode": mode})


def view(walk: Walk, truth: Truth | None, more: dict[str, Any]) -> Message:
    """The newest frame, and beside it what is true."""
    now = walk.now
    parts = [png(now.picture)]
    header: dict[str, Any] = {"number": walk.number, "action": now.action, "undo": walk.length > 0, **more}
    if now.truth is not None and truth is not None:
        parts.append(png(now.truth))
        header |= {"grid": [truth.rows, truth.columns], "differ": truth.differ(now.picture, now.truth)}
    return Message("view", header, tuple(parts))


def png(picture: np.ndarray) -> bytes:
    """A picture (height, width, 3) uint8 as PNG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()

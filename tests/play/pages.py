"""A page without a browser: what it sends and is sent, over a real socket."""

from __future__ import annotations

import io
import json
import struct
import time
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image
from websockets.sync.client import connect


class Page:
    """Speaks as the page does, and acknowledges every picture."""

    def __init__(self, port: int, origin: str | None = None) -> None:
        own = f"http://127.0.0.1:{port}"
        self.socket = connect(f"ws://127.0.0.1:{port}/play", origin=origin or own, max_size=None, open_timeout=30)  # type: ignore[arg-type]

    def __enter__(self) -> Page:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, kind: str, **values: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **values}))

    def send_picture(self, data: bytes, purpose: str) -> None:
        header = json.dumps({"type": "picture", "for": purpose}).encode()
        self.socket.send(struct.pack(">I", len(header)) + header + data)

    def receive(self, seconds: float = 60.0) -> dict[str, Any]:
        raw = self.socket.recv(seconds)
        if isinstance(raw, str):
            return json.loads(raw)
        message = unpacked(raw)
        self.send("seen")
        return message

    def wait_for(self, kind: str, seconds: float = 60.0, **values: Any) -> dict[str, Any]:
        """The next message of a kind with some values; others are dropped."""
        end = time.monotonic() + seconds
        while True:
            message = self.receive(max(0.01, end - time.monotonic()))
            if message["type"] == kind and all(message.get(name) == value for name, value in values.items()):
                return message

    def begun(self) -> dict[str, Any]:
        """The first view."""
        return self.wait_for("view", number=0)


def unpacked(raw: bytes) -> dict[str, Any]:
    """A message with pictures, whose `parts` are their bytes."""
    (length,) = struct.unpack(">I", raw[:4])
    message = json.loads(raw[4 : 4 + length])
    start, parts = 4 + length, []
    for size in message["parts"]:
        parts.append(raw[start : start + size])
        start += size
    return {**message, "parts": parts}


def picture_in(message: dict[str, Any], number: int = 0) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(message["parts"][number])))


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()

"""What waits to be sent to one page; whatever the page does, it stays small and is never late."""

from __future__ import annotations

import asyncio
from collections import deque

from lit_mm.play.protocol import Message

WAITING = 2  # messages of a kind; the oldest gives way
UNSEEN = 2  # messages with pictures that were sent and that the page has not painted yet


class Outbox:
    """Messages from the thread that imagines to the loop that sends.

    Every message tells all of its kind that a page needs to know, so the newest two are enough: latency never builds
    up, however slowly a page reads. Pictures wait until the page has painted those before them.

    Args:
        loop: that sends.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: deque[Message] = deque()
        self._unseen = 0
        self._changed = asyncio.Event()

    def put(self, message: Message) -> None:
        """Send a message soon; from any thread."""
        try:
            self.loop.call_soon_threadsafe(self._put, message)
        except RuntimeError:  # the loop is closed: the server has stopped
            return

    def seen(self) -> None:
        """The page has painted a message with pictures."""
        self._unseen = max(0, self._unseen - 1)
        self._changed.set()

    async def next(self) -> Message:
        """The next message to send."""
        while True:
            for message in self._waiting:
                if not message.parts or self._unseen < UNSEEN:
                    self._waiting.remove(message)
                    self._unseen += bool(message.parts)
                    return message
            self._changed.clear()
            await self._changed.wait()

    def _put(self, message: Message) -> None:
        alike = [other for other in self._waiting if other.kind == message.kind]
        if len(alike) >= WAITING:
            self._waiting.remove(alike[0])
        self._waiting.append(message)
        self._changed.set()

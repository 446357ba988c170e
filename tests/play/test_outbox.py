"""Whatever a page does, little waits for it, and nothing old."""

from __future__ import annotations

import asyncio
import threading

from lit_mm.play.outbox import Outbox
from lit_mm.play.protocol import Message


def frame(number: int) -> Message:
    return Message("view", {"number": number}, (b"picture",))


async def taken(outbox: Outbox) -> Message | None:
    try:
        return await asyncio.wait_for(outbox.next(), 0.05)
    except (TimeoutError, asyncio.TimeoutError):
        return None


def test_of_many_frames_the_newest_two_wait() -> None:
    async def play() -> list[int]:
        outbox = Outbox(asyncio.get_running_loop())
        thread = threading.Thread(target=lambda: [outbox.put(frame(number)) for number in range(100)])
        thread.start()
        await asyncio.to_thread(thread.join)
        await asyncio.sleep(0)
        return [(await outbox.next()).values["number"] for _ in range(2)]

    assert asyncio.run(play()) == [98, 99]


def test_pictures_wait_until_those_before_them_are_painted_and_words_do_not() -> None:
    async def play() -> None:
        outbox = Outbox(asyncio.get_running_loop())
        for number in range(2):
            outbox.put(frame(number))
            assert await taken(outbox) is not None
        outbox.put(frame(2))
        outbox.put(Message("error", {"text": "no"}))
        first = await taken(outbox)
        assert first is not None
        assert first.kind == "error"
        assert await taken(outbox) is None, "two frames are on their way"
        outbox.put(frame(3))
        outbox.put(frame(4))
        outbox.seen()
        newest = await taken(outbox)
        assert newest is not None
        assert newest.values["number"] == 3, "frame 2 gave way"
        assert await taken(outbox) is None

    asyncio.run(play())


def test_nothing_happens_once_the_loop_has_ended() -> None:
    async def make() -> Outbox:
        return Outbox(asyncio.get_running_loop())

    asyncio.run(make()).put(frame(0))

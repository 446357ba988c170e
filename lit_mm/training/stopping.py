"""What ends the program when a signal asks it to."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(SystemExit):
    """A signal has ended the program.

    Its exit code is 130 after Ctrl-C, as shells have it, and 75 after SIGTERM and SIGUSR1: the system's code for a
    temporary failure, which tells a batch script that there is more to do.

    Args:
        number: the signal.
        at_once: whether nothing is to be saved.
    """

    def __init__(self, number: int, at_once: bool = False) -> None:
        super().__init__(130 if number == signal.SIGINT else 75)
        self.by = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        self.at_once = at_once


def listen(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, object]:
    """Let `handler` have all signals that stop a run; what had them before."""
    return {number: signal.signal(number, handler) for number in SIGNALS}


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """A signal raises `Stopped` wherever the program is, unless something else listens by then."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    before = listen(stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

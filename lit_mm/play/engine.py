"""The one thread that computes: a little for each player in turn."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import torch

from lit_mm.mistake import Mistake
from lit_mm.play.session import Session

logger = logging.getLogger(__name__)


class Engine(threading.Thread):
    """Works for several sessions, so that one that asks for much does not keep the others waiting for long.

    Args:
        most: sessions at a time.
    """

    def __init__(self, most: int) -> None:
        super().__init__(name="imagines", daemon=True)
        self.most = most
        self._sessions: list[Session] = []
        self._left: list[Session] = []
        self._changed = threading.Condition()
        self._stopping = False

    @property
    def playing(self) -> int:
        """Sessions now."""
        return len(self._sessions)

    def add(self, make: Callable[[], Session]) -> Session:
        """Begin a session.

        Raises:
            Mistake: there are as many as there may be.
        """
        with self._changed:
            if len(self._sessions) >= self.most:
                raise Mistake(f"{self.most} are playing already; try again when one has left")
            session = make()
            self._sessions.append(session)
            self._changed.notify()
            return session

    def wake(self) -> None:
        """A session was asked for something."""
        with self._changed:
            self._changed.notify()

    def remove(self, session: Session) -> None:
        """End a session."""
        with self._changed:
            if session in self._sessions:
                self._sessions.remove(session)
                self._left.append(session)
            self._changed.notify()

    def stop(self) -> None:
        """End all of them, and the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self.join()

    def run(self) -> None:
        """Work until `stop`."""
        torch.set_grad_enabled(False)  # of this thread
        while True:
            with self._changed:
                sessions, left, self._left = list(self._sessions), self._left, []
                stopping = self._stopping
            for session in [*left, *(sessions if stopping else [])]:
                session.close()
            if stopping:
                return
            waits = [wait for session in sessions if (wait := _worked(session)) is not None]
            with self._changed:
                if min(waits, default=1.0) > 0 and not self._stopping and not self._left:
                    self._changed.wait_for(
                        lambda: self._stopping or self._left or any(s.asked for s in self._sessions),
                        min(waits, default=None),
                    )


def _worked(session: Session) -> float | None:
    """See `Session.work`; a fault in one session ends no other."""
    begun = time.monotonic()
    try:
        return session.work()
    except Exception:
        logger.exception("a session failed after %.1f s; it goes on", time.monotonic() - begun)
        return 0.0

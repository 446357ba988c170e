"""Writing checkpoints while training goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """Does one thing after the other, at once or in a thread of its own.

    What is given later never starts before what was given earlier has ended, so an old checkpoint is removed only when
    the new one is complete. After a failure nothing more is done, and the failure is raised at the next call.

    Args:
        enabled: whether there is a thread; otherwise things are done at once.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._executor: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None

    def run(self, task: Callable[[], None]) -> None:
        """Do it, or see to it that it will be done."""
        if not self.enabled:
            task()
            return
        before = self._last
        if before is not None and before.done():
            before.result()  # a failure is raised here
        self._executor = self._executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._last = self._executor.submit(_after, before, task)

    def finish(self) -> None:
        """Wait until all is done."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def teardown(self) -> None:
        """Wait until all is done, and end the thread."""
        try:
            self.finish()
        finally:
            if self._executor is not None:
                self._executor.shutdown()
                self._executor = None


def _after(before: Future[None] | None, task: Callable[[], None]) -> None:
    if before is not None:
        before.result()  # done, as the thread does one thing at a time; if it failed, this one fails alike
    task()

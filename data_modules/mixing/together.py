"""What is a mistake on one process of a run ends all of them: none waits for one that is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from lit_mm.mistake import Mistake, mistake_in


def is_distributed() -> bool:
    """Whether this process is one of several that can talk to each other."""
    return dist.is_available() and dist.is_initialized()


@contextmanager
def together() -> Iterator[None]:
    """Wait until all processes are through with what is within; every process has to come here.

    Raises:
        Mistake: here, or on another process, whose sentence it has then.
    """
    own: Exception | None = None
    try:
        yield
    except Exception as error:
        if mistake_in(error) is None or not is_distributed():
            raise
        own = error
    if not is_distributed():
        return
    mistake = mistake_in(own)
    said = [""] * dist.get_world_size()
    dist.all_gather_object(said, mistake.sentence if mistake else "")
    if own is not None:
        raise own
    if first := next(filter(None, said), None):
        raise Mistake(first)

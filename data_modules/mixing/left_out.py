"""Documents that are left out since their file broke while being read (`on_error: skip`)."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist

from lit_mm.mistake import Mistake

logger = logging.getLogger(__name__)

BY_CHANCE = 1e-6  # of a verdict on a source that loses just as many documents as it may


class LeftOut:
    """Counts and reports what is left out.

    Each rank counts its own; `judge` adds them up, so that all ranks come to the same verdict.

    Args:
        most: share of a source's documents that may be lost, in [0, 1].

    Attributes:
        counts: times that a document of each source was left out of training, on all ranks, when last judged. A run
            that goes on counts on; its verdicts are on what it has drawn itself.
    """

    def __init__(self, most: float = 0.01) -> None:
        self.most = most
        self.counts: Counter[str] = Counter()
        self._drawn: Counter[str] = Counter()  # by all ranks, since this run began
        self._lost: Counter[str] = Counter()  # of those
        self._own: Counter[str] = Counter()  # by this rank, since the last verdict
        self._first: dict[str, str] = {}

    def say_first(self, reports: Mapping[str, Sequence[str]]) -> None:
        """Warn of the first document of each source.

        Args:
            reports: sentences by source, one for each document that a batch lacks.
        """
        for source, sentences in reports.items():
            if source not in self._first:
                self._first[source] = sentences[0]
                logger.warning("a document of '%s' is left out: %s", source, sentences[0])

    def count(self, reports: Mapping[str, Sequence[str]], drawn: Mapping[str, int]) -> None:
        """Count what a batch of training lacks.

        Args:
            reports: as for `say_first`, of this rank's batch.
            drawn: by source, how many documents all ranks have drawn for theirs; the same sources on every rank.
        """
        self._drawn.update(drawn)
        self._own.update({source: len(sentences) for source, sentences in reports.items()})

    def judge(self, device: torch.device) -> None:
        """Add up what all ranks left out. Every rank has to call it after the same batch.

        Args:
            device: where ranks exchange numbers.

        Raises:
            Mistake: a source loses more documents than it may, and more than chance alone explains.
        """
        sources = sorted(self._drawn)
        lost = torch.tensor([self._own[source] for source in sources], device=device)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(lost)
        found = {source: n for source, n in zip(sources, lost.tolist(), strict=True) if n}
        self.counts.update(found)
        self._lost.update(found)
        self._own.clear()
        for source in sources:
            if _surely_more(self._lost[source], self._drawn[source], self.most):
                raise Mistake(
                    f"source '{source}': {self._lost[source]} of about {self._drawn[source]} documents broke while "
                    f"being read, more than {100 * self.most:g} % (data.loader.max_lost); repair its files, or use "
                    "data.loader.on_error: raise to see the first one"
                )

    def say_all(self) -> None:
        """Warn once more of what this run has left out, at its end."""
        for source, sentence in self._first.items():
            if lost := self.counts[source] + self._own[source]:
                times = f"{lost} documents were" if lost > 1 else "1 document was"
                logger.warning("%s left out of '%s'; the first: %s", times, source, sentence)
        self._first.clear()


def _surely_more(lost: int, drawn: int, most: float) -> bool:
    """Whether a source that may lose a share `most` of its documents would hardly ever lose so many of those drawn.

    By Chernoff's bound on the tail of the binomial distribution, so the fewer were drawn the more have to be lost.
    """
    share = min(1.0, lost / max(1, drawn))
    if share <= most:
        return False
    if most == 0:
        return True
    rest = (1 - share) * math.log((1 - share) / (1 - most)) if share < 1 else 0.0
    return drawn * (share * math.log(share / most) + rest) > -math.log(BY_CHANCE)

"""Documents that are left out since their file broke while being read (`on_error: skip`)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from lit_mm.mistake import Mistake

logger = logging.getLogger(__name__)

MAX_SKIPPED = 0.01  # of a source's documents; past that, `on_error: skip` is an error too


class LeftOut:
    """Counts and reports what one rank leaves out.

    Attributes:
        counts: times that a document of each source was left out of training.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
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
            reports: as for `say_first`.
            drawn: by source, how many documents this rank has drawn so far.

        Raises:
            Mistake: more than 1 % of a source's documents are lost.
        """
        for source, sentences in reports.items():
            self.counts[source] += len(sentences)
            lost = self.counts[source]
            if lost > max(1, MAX_SKIPPED * drawn[source]):
                raise Mistake(
                    f"source '{source}': {lost} of about {drawn[source]} documents broke while being read, more than "
                    "1 %; repair its files, or use data.loader.on_error: raise to see the first one"
                )

    def say_all(self) -> None:
        """Warn once more of what this run has left out, at its end."""
        for source, sentence in self._first.items():
            if lost := self.counts[source]:
                times = f"{lost} documents were" if lost > 1 else "1 document was"
                logger.warning("%s left out of '%s'; the first: %s", times, source, sentence)
        self._first.clear()

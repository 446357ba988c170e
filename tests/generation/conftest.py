from __future__ import annotations

from collections.abc import Sequence

import pytest
from torch import Tensor

from lit_mm.generation.sampling import TextSampling, choose_tokens
from tests.helpers.decoders import Scripted


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows with a script follow it."""

    def choose(logits: Tensor, samplings: Sequence[TextSampling], uniform: Sequence[float]) -> Tensor:
        chosen = choose_tokens(logits, samplings, uniform)
        for row, sampling in enumerate(samplings):
            if isinstance(sampling, Scripted):
                sampling.seen.append(logits[row])
                chosen[row] = sampling.rule(logits[row], len(sampling.seen) - 1)
        return chosen

    monkeypatch.setattr("lit_mm.generation.loop.choose_tokens", choose)

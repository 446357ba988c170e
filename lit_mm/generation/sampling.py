"""Which token comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_mm.mistake import Mistake


@dataclass(frozen=True)
class TextSampling:
    """How a token is chosen from its logits, in this order.

    Args:
        temperature: divides the logits; 0 takes the most likely token whatever the rest says, else at least 1e-6.
        top_k: only so many of the most likely tokens are left; 0 leaves all.
        top_p: only the most likely tokens that together have this probability are left (Holtzman et al. 2019, arXiv
            1904.09751); 1 leaves all.
        min_p: only tokens of at least this share of the most likely one's probability are left (Nguyen et al. 2024,
            arXiv 2407.01082); 0 leaves all.

    Raises:
        Mistake: a value is out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (self.temperature == 0 or self.temperature >= 1e-6, "0, or 1e-6 or more"),
            "top_k": (self.top_k >= 0 and self.top_k == int(self.top_k), "a whole number, 0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
        }
        for name, (fits, wanted) in ranges.items():
            if not fits:
                raise Mistake(f"{name} is {getattr(self, name)}; it has to be {wanted}")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (vocabulary,) float32 that the next token is drawn from."""
        logits = logits.float()
        if self.temperature == 0:
            return torch.zeros_like(logits).index_fill_(0, logits.argmax(), 1.0)
        scores = logits[None]
        for warper in self._warpers():
            scores = warper(None, scores)
        return scores[0].softmax(-1)

    def _warpers(self) -> list:
        from transformers.generation import logits_process as warp

        warpers: list = [warp.TemperatureLogitsWarper(float(self.temperature))] if self.temperature != 1 else []
        if self.top_k:
            warpers.append(warp.TopKLogitsWarper(int(self.top_k)))
        if self.top_p < 1:
            warpers.append(warp.TopPLogitsWarper(self.top_p))
        if self.min_p:
            warpers.append(warp.MinPLogitsWarper(self.min_p))
        return warpers

    def choose(self, logits: Tensor, generator: torch.Generator, banned: Sequence[int] = ()) -> int:
        """The next token.

        Args:
            logits: (vocabulary,).
            generator: of the logits' device.
            banned: tokens that cannot come next.
        """
        if banned:
            logits = logits.index_fill(0, torch.tensor(banned, device=logits.device), -torch.inf)
        if self.temperature == 0:
            return int(logits.argmax())
        return int(torch.multinomial(self.probabilities(logits), 1, generator=generator))

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


def choose_tokens(logits: Tensor, samplings: Sequence[TextSampling], uniform: Sequence[float]) -> Tensor:
    """The next token of every row, each by its own settings and number alone.

    Args:
        logits: (R, vocabulary); minus infinity for what cannot come.
        samplings: R settings.
        uniform: R numbers in [0, 1), which decide.

    Returns:
        (R,) int64.
    """
    likeliest = logits.argmax(-1)
    if all(sampling.temperature == 0 for sampling in samplings):
        return likeliest
    probabilities, order = sorted_probabilities(logits, samplings)
    cumulative = probabilities.cumsum(-1)
    number = torch.tensor(uniform, device=logits.device)[:, None]
    place = torch.searchsorted(cumulative, number * cumulative[:, -1:], right=True)
    last = (probabilities > 0).sum(-1, keepdim=True) - 1  # where a number was rounded up to 1
    drawn = order.gather(-1, place.minimum(last))[:, 0]
    greedy = torch.tensor([sampling.temperature == 0 for sampling in samplings], device=logits.device)
    return torch.where(greedy, likeliest, drawn)


def sorted_probabilities(logits: Tensor, samplings: Sequence[TextSampling]) -> tuple[Tensor, Tensor]:
    """Probabilities (R, vocabulary) float32, the largest first, 0 for tokens that a rule leaves out; and the tokens.

    They sum to 1 before top-p and min-p leave some out. Arguments are those of `choose_tokens`.
    """
    vocabulary = logits.shape[-1]
    rules = [
        (s.temperature or 1.0, min(s.top_k or vocabulary, vocabulary), s.top_p if s.top_p < 1 else 2.0, s.min_p)
        for s in samplings
    ]
    temperature, top_k, top_p, min_p = torch.tensor(rules, device=logits.device).T[..., None]
    scores, order = (logits.float() / temperature).sort(-1, descending=True)
    least = scores.gather(-1, top_k.long() - 1)
    probabilities = scores.masked_fill(scores < least, -torch.inf).softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    left = (before < top_p) & (probabilities >= min_p * probabilities[:, :1])
    return probabilities.masked_fill(~left, 0.0), order

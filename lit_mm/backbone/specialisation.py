"""What experts turned out to be for: how often each kind of token chooses each of them (paper section 6.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lit_mm.backbone.balance import summarise

TIMESTEP_BINS = 10
# Kinds of tokens: text, visual tokens that are read, and visual tokens that are drawn, by their timestep.
TEXT, READ, DRAWN = 0, 1, 2
KINDS = 2 + TIMESTEP_BINS
# An expert belongs to a modality whose tokens choose it at least three times as often as those of the other.
THRESHOLD = 0.5


class Specialisation(NamedTuple):
    """Of the L layers with experts.

    Attributes:
        text_rate: (L, E) share of the choices of text tokens that fell on each expert, R_text.
        visual_rate: (L, E) the same of visual tokens, R_visual.
        score: (L, E) (R_text - R_visual) / (R_text + R_visual), from -1 (visual only) to 1 (text only); not a number
            for experts that nothing chose.
        text, multimodal, visual: (L,) experts with a score of at least 0.5, in between, and of at most -0.5. The paper
            does not state its thresholds.
        agreement: (L,) Pearson's correlation over experts between the rates of read and of drawn visual tokens; not a
            number where there were none.
        timestep_variation: (L,) standard deviation over ten bins of t of the rate of drawn tokens, divided by its mean;
            of experts in proportion to their use by drawn tokens.
        largest, entropy, dead: (L,) of the load of all tokens, see `balance.LoadSummary`.
    """

    text_rate: Tensor
    visual_rate: Tensor
    score: Tensor
    text: Tensor
    multimodal: Tensor
    visual: Tensor
    agreement: Tensor
    timestep_variation: Tensor
    largest: Tensor
    entropy: Tensor
    dead: Tensor


def token_kinds(visual_positions: Tensor, drawn_frames: Tensor, timesteps: Tensor, total: int) -> Tensor:
    """The kind of every token.

    Args:
        visual_positions: (F, N) flattened index of every visual token.
        drawn_frames: (F',) which frames are drawn; all others are read.
        timesteps: (F,) in [0, 1].
        total: T, of all tokens.

    Returns:
        (T,) int64, `TEXT`, `READ`, or `DRAWN` + number of the bin of t.
    """
    frames = torch.full_like(timesteps, READ, dtype=torch.int64)
    bins = (timesteps * TIMESTEP_BINS).long().clamp(0, TIMESTEP_BINS - 1)
    frames[drawn_frames] = DRAWN + bins[drawn_frames]
    kinds = torch.full((total,), TEXT, device=timesteps.device)
    return kinds.index_copy(0, visual_positions.flatten(), frames[:, None].expand_as(visual_positions).flatten())


def specialisation(counts: Tensor) -> Specialisation:
    """From (L, KINDS, E), how often tokens of each kind chose each expert."""
    counts = counts.double()
    text, read, bins = counts[:, TEXT], counts[:, READ], counts[:, DRAWN:]
    drawn = bins.sum(1)
    text_rate, visual_rate = _rates(text), _rates(read + drawn)
    score = (text_rate - visual_rate) / (text_rate + visual_rate)
    by_bin = _rates(bins)
    # Bins without tokens say nothing; the others count alike.
    seen = bins.sum(-1, keepdim=True) > 0
    number = seen.sum(1)
    mean = torch.where(seen, by_bin, 0).sum(1) / number
    deviation = (torch.where(seen, by_bin - mean[:, None], 0).square().sum(1) / number).sqrt()
    variation = torch.where(mean > 0, deviation / mean, 0)
    load = summarise(counts.sum(1))
    return Specialisation(
        text_rate=text_rate,
        visual_rate=visual_rate,
        score=score,
        text=(score >= THRESHOLD).sum(-1),
        multimodal=(score.abs() < THRESHOLD).sum(-1),
        visual=(score <= -THRESHOLD).sum(-1),
        agreement=_correlation(_rates(read), _rates(drawn)),
        timestep_variation=(variation * _rates(drawn)).sum(-1),
        largest=load.largest,
        entropy=load.entropy,
        dead=load.dead,
    )


def _rates(counts: Tensor) -> Tensor:
    """Shares over the last dimension; not a number where there is nothing to share."""
    return counts / counts.sum(-1, keepdim=True)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.square().sum(-1) * b.square().sum(-1)).sqrt()

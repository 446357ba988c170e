"""Roll-outs: frame after frame, each drawn from the last few and an action (paper §5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.request import frame_seed
from lit_mm.sequence import Frame, Segment, Text
from lit_mm.tokenizer import Tokenizer


@dataclass(frozen=True)
class RollOut:
    """What to imagine.

    Args:
        context: (n, 3, image_size, image_size) uint8, or latents (n, N, C), oldest first.
        actions: one text per frame to draw.
        seed: of the noise. Every frame has noise of its own, which no frame of another seed has.
        sampler: of frames; the decoder's own by default.
    """

    context: Tensor
    actions: Sequence[str]
    seed: int = 0
    sampler: FlowSampler | None = None


def roll_out(decoder: Decoder, roll_outs: Sequence[RollOut]) -> list[Tensor]:
    """Draw one frame per action; each becomes the newest of the context's frames, and the oldest is forgotten.

    All roll-outs advance together. Every frame is a document of its own, as in training, so nothing but the frames in
    the window is remembered, whatever the length.

    Returns:
        For each roll-out (actions, N, C) latents.
    """
    t = decoder.tokenizer
    windows = [list(frames) for frames in _latents(decoder, [r.context for r in roll_outs])]
    drawn: list[list[Tensor]] = [[] for _ in roll_outs]
    for step in range(max((len(r.actions) for r in roll_outs), default=0)):
        going_on = [i for i, r in enumerate(roll_outs) if step < len(r.actions)]
        prefixes = [
            shown(t, torch.stack(windows[i]), [t.bos_id], [roll_outs[i].actions[step], t.boi_id]) for i in going_on
        ]
        for sampler in {id(roll_outs[i].sampler): roll_outs[i].sampler for i in going_on}.values():
            alike = [n for n, i in enumerate(going_on) if roll_outs[i].sampler is sampler]
            seeds = [frame_seed(roll_outs[going_on[n]].seed, step) for n in alike]
            latents = decoder.draw_latents([prefixes[n] for n in alike], seeds, sampler)
            for n, of_row in zip(alike, latents, strict=True):
                i = going_on[n]
                drawn[i].append(of_row[:, : decoder.vision.channels])
                windows[i] = [*windows[i][1:], of_row]
    return [torch.stack(frames) for frames in drawn]


def shown(
    tokenizer: Tokenizer, frames: Tensor, opening: Sequence[int | str], closing: Sequence[int | str] = ()
) -> list[Segment]:
    """Clean frames behind some text, each between its delimiters, and text behind the last."""
    t = tokenizer
    segments: list[Segment] = []
    before = list(opening)
    for frame in frames:
        segments += [Text(t.ids(*before, t.boi_id)), Frame(frame, clean=True)]
        before = [t.eoi_id]
    return [*segments, Text(t.ids(*before, *closing))]


def _latents(decoder: Decoder, contexts: Sequence[Tensor]) -> list[Tensor]:
    """Contexts as latents; all pictures are encoded together."""
    prefixes = [[Frame(frame, clean=True) for frame in context] for context in contexts]
    encoded = decoder.encode(prefixes)
    return [torch.stack([s.image for s in prefix if isinstance(s, Frame)]) for prefix in encoded]

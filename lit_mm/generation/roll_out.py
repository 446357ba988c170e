"""Roll-outs: frame after frame, each drawn from the last few and an action (paper §5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder, uncompiled
from lit_mm.generation.request import frame_seed
from lit_mm.generation.windows import Windows
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
    if not roll_outs:
        return []
    samplers = [r.sampler or decoder.sampler for r in roll_outs]
    with uncompiled():
        windows = Windows(decoder, len(roll_outs), any(s.guidance_scale != 1.0 for s in samplers))
        seen = [list(frames) for frames in as_latents(decoder, [r.context for r in roll_outs])]
        drawn: list[list[Tensor]] = [[] for _ in roll_outs]
        for step in range(max((len(r.actions) for r in roll_outs), default=0)):
            going_on = [i for i, r in enumerate(roll_outs) if step < len(r.actions)]
            read = [shown(decoder.tokenizer, seen[i], [decoder.tokenizer.bos_id]) for i in going_on]
            windows.read(going_on, read)
            told = [action_behind(decoder.tokenizer, roll_outs[i].actions[step]) for i in going_on]
            windows.read(going_on, [[*frames, action] for frames, action in zip(read, told, strict=True)])
            for sampler in {id(samplers[i]): samplers[i] for i in going_on}.values():
                alike = [i for i in going_on if samplers[i] is sampler]
                seeds = [step_seed(roll_outs[i].seed, step) for i in alike]
                latents = deque(windows.draw(alike, seeds, sampler), maxlen=1)[0]
                for i, of_row in zip(alike, decoder.read_again(latents), strict=True):
                    drawn[i].append(of_row[:, : decoder.vision.channels])
                    seen[i] = [*seen[i][1:], of_row]
    return [torch.stack(frames) for frames in drawn]


def step_seed(seed: int, step: int) -> int:
    """Seed of the noise of a roll-out's n-th frame: that of the first frame of an answer of its own."""
    return frame_seed(frame_seed(seed, step), 0)


def action_behind(tokenizer: Tokenizer, action: str) -> Text:
    """What is done behind a window of frames, and the beginning of the frame that follows."""
    return Text(tokenizer.ids(action, tokenizer.boi_id))


def shown(
    tokenizer: Tokenizer,
    frames: Tensor | Sequence[Tensor],
    opening: Sequence[int | str],
    closing: Sequence[int | str] = (),
) -> list[Segment]:
    """Clean frames behind some text, each between its delimiters, and text behind the last."""
    t = tokenizer
    segments: list[Segment] = []
    before = list(opening)
    for frame in frames:
        segments += [Text(t.ids(*before, t.boi_id)), Frame(frame, clean=True)]
        before = [t.eoi_id]
    return [*segments, Text(t.ids(*before, *closing))]


def as_latents(decoder: Decoder, contexts: Sequence[Tensor]) -> list[Tensor]:
    """Contexts as latents; all pictures are encoded together."""
    prefixes = [[Frame(frame, clean=True) for frame in context] for context in contexts]
    encoded = decoder.encode(prefixes)
    return [torch.stack([s.image for s in prefix if isinstance(s, Frame)]) for prefix in encoded]

"""Answering prompts: each in the document format that its kind has in training."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mm.generation.decoding import Decoder
from lit_mm.prompt import Answer, Prompt
from lit_mm.sequence import Frame, Segment, Text


def answer(decoder: Decoder, prompt: Prompt) -> Answer:
    """Continue one prompt."""
    t = decoder.tokenizer
    if prompt.wanted == "frames":
        return Answer(prompt, frames=roll_out(decoder, prompt.pictures, prompt.actions, prompt.seed))
    if prompt.wanted == "image":
        prefix: list[Segment] = [Text(t.ids(t.bos_id, prompt.text, t.boi_id))]
        return Answer(prompt, frames=decoder.draw_frames([prefix], [prompt.seed]))
    prefix = [*_shown(decoder, prompt.pictures), Text(t.ids(prompt.text))]
    ids = decoder.write_text([prefix], [prompt.seed], max_tokens=prompt.max_tokens, temperature=prompt.temperature)
    return Answer(prompt, text=t.decode(ids[0]))


def roll_out(decoder: Decoder, context: Tensor, actions: tuple[str, ...], seed: int) -> Tensor:
    """Draw one frame per action; each becomes the newest of the context's frames (paper §7, a sliding window).

    Args:
        decoder: the model.
        context: (n, 3, image_size, image_size) uint8, oldest first.
        actions: one text per frame.
        seed: of the noise; frame i uses seed + i.

    Returns:
        (actions, 3, image_size, image_size) uint8.
    """
    t = decoder.tokenizer
    window, drawn = context, []
    for i, action in enumerate(actions):
        prefix = [*_shown(decoder, window), Text(t.ids(action, t.boi_id))]
        drawn.append(decoder.draw_frames([prefix], [seed + i]).cpu())
        window = torch.cat([window[1:].cpu(), drawn[-1]])
    return torch.cat(drawn)


def _shown(decoder: Decoder, pictures: Tensor) -> list[Segment]:
    t = decoder.tokenizer
    opening: list[int | str] = [t.bos_id]
    segments: list[Segment] = []
    for picture in pictures:
        segments += [Text(t.ids(*opening, t.boi_id)), Frame(picture.cpu(), clean=True)]
        opening = [t.eoi_id]
    return [*segments, Text(t.ids(*opening))]

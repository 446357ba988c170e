"""What `predict` is asked, and what it answers: like `lit_mm.sequence`, shared by the data side and the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Wanted = Literal["image", "text", "frames"]


@dataclass
class Prompt:
    """One thing to continue.

    Attributes:
        name: of the output files.
        wanted: a picture of a caption (`image`), text behind a text or behind pictures (`text`), or one frame per
            action behind context frames (`frames`).
        text: caption, or beginning of the text; empty behind pictures.
        pictures: (n, 3, image_size, image_size) uint8, shown first.
        actions: texts, one per frame to draw.
        seed: of everything sampled for this prompt.
        max_tokens: longest text.
        temperature: of sampled text; 0 takes the most likely token.
    """

    name: str
    wanted: Wanted
    text: str = ""
    pictures: Tensor = field(default_factory=lambda: torch.zeros(0, 3, 1, 1, dtype=torch.uint8))
    actions: tuple[str, ...] = ()
    seed: int = 0
    max_tokens: int = 64
    temperature: float = 0.0


@dataclass
class Answer:
    """A prompt with what came out: `text`, or `frames` (n, 3, image_size, image_size) uint8."""

    prompt: Prompt
    text: str | None = None
    frames: Tensor | None = None

"""What `predict` is asked, and what it answers: like `lit_mm.sequence`, shared by the data side and the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Wanted = Literal["image", "text", "frames", "any"]


@dataclass
class Prompt:
    """One thing to continue.

    Attributes:
        name: of the output files.
        wanted: one picture (`image`), text alone (`text`), one frame per action (`frames`), or texts and pictures as
            the model likes (`any`).
        parts: texts and pictures (3, image_size, image_size) uint8 in reading order, shown first.
        actions: texts, one per frame to draw.
        seed: of everything sampled for this prompt.
        max_tokens: most text tokens.
        max_frames: most pictures, where they are as the model likes.
        sampling: fields of `lit_mm.generation.sampling.TextSampling` that differ from its defaults.
        sampler: fields of `lit_mm.flow.sampler.FlowSampler` that differ from the model's.
        stop: texts that end the answer.
        truth: (n, 3, image_size, image_size) uint8, what is truly seen where frames are drawn, if that is known. The
            model is not shown it; people are.
        group: what the prompts share that answer one item: several draws, or several ways to act.
        settings: the item as it was asked, for the record.
    """

    name: str
    wanted: Wanted
    parts: tuple[str | Tensor, ...] = ()
    actions: tuple[str, ...] = ()
    seed: int = 0
    max_tokens: int = 64
    max_frames: int = 4
    sampling: dict[str, float] = field(default_factory=dict)
    sampler: dict[str, Any] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    truth: Tensor | None = None
    group: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def pictures(self) -> list[Tensor]:
        """Those of the parts."""
        return [part for part in self.parts if not isinstance(part, str)]

    @property
    def text(self) -> str:
        """Of the parts, and the actions."""
        return " ".join([part for part in self.parts if isinstance(part, str)] + list(self.actions))


@dataclass
class FailedPrompt:
    """A prompt that cannot be read or answered.

    Attributes:
        name: that it was given.
        error: the sentence that says why.
        group: see `Prompt`.
        settings: the item as it was asked.
    """

    name: str
    error: str
    group: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Answer:
    """What came out.

    Attributes:
        prompt: what was asked.
        parts: texts and pictures (3, image_size, image_size) uint8, in order.
        stopped: why it ended, see `lit_mm.generation.request.Continuation`.
    """

    prompt: Prompt
    parts: list[str | Tensor]
    stopped: str = ""

    @property
    def text(self) -> str:
        """All of its text."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def frames(self) -> Tensor:
        """All of its pictures, (n, 3, image_size, image_size) uint8; n may be 0."""
        pictures = [part for part in self.parts if not isinstance(part, str)]
        return torch.stack(pictures) if pictures else torch.zeros(0, 3, 1, 1, dtype=torch.uint8)

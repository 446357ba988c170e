"""What is to be continued, and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.sampling import TextSampling
from lit_mm.sequence import Frame, Segment, Text

Prefix = Sequence[Segment]
Stop = Literal["eos", "tokens", "frames", "text", "context"]


def frame_seed(seed: int, frame: int) -> int:
    """Seed of the noise of an answer's n-th frame.

    Repetitions have seeds that count up, as frames do: a sum of both would give frames of several answers one noise.
    """
    return int(np.random.SeedSequence((seed, frame)).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class Request:
    """What to continue, and how far.

    Args:
        prefix: segments as a document has them. Behind a `<boi>` at its end a frame is drawn first.
        seed: of everything sampled; the same whatever else is asked at the same time.
        max_tokens: most text tokens to write, delimiters included.
        max_frames: most frames to draw; with 0 there is only text.
        sampling: of text.
        stop: texts that end the answer, which does not hold them.
        sampler: of frames; the decoder's own by default.
        context: most positions of prefix and answer together; unlimited by default.
    """

    prefix: Prefix
    seed: int = 0
    max_tokens: int = 0
    max_frames: int = 0
    sampling: TextSampling = field(default_factory=TextSampling)
    stop: tuple[str, ...] = ()
    sampler: FlowSampler | None = None
    context: int | None = None


@dataclass
class Continuation:
    """What was added to a prefix.

    Attributes:
        segments: texts with delimiters, and frames as latents, in order; without the `<eos>` that ended it.
        stopped: why it ended: the model's `<eos>`, the most tokens, frames or positions, or a stop text.
    """

    segments: list[Segment] = field(default_factory=list)
    stopped: Stop = "eos"

    @property
    def ids(self) -> list[int]:
        """All text tokens."""
        return [int(i) for s in self.segments if isinstance(s, Text) for i in s.ids]

    @property
    def latents(self) -> list[Tensor]:
        """All frames (N, C)."""
        return [s.image for s in self.segments if isinstance(s, Frame)]

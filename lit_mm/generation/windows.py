"""Windows of frames that slide: what rows hold is kept from frame to frame, as far as it is the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.drawing import draw_frames, frame_noise
from lit_mm.generation.parts import ModelParts
from lit_mm.generation.request import Prefix
from lit_mm.generation.rows import CachedRows
from lit_mm.sequence import Document, Segment, Text


class Windows:
    """Rows that each hold a few frames and an action, and show what comes next.

    A window that has slid begins with another frame, which all that follows has read, so that only what stands before
    its first frame is kept. Before the same frames any number of actions are tried by reading these alone.

    Args:
        parts: the model.
        count: number of windows.
        guided: whether frames may be drawn with guidance, for which every window has a second row without its text.
    """

    def __init__(self, parts: ModelParts, count: int, guided: bool) -> None:
        self.parts, self.count = parts, count
        self.cached = CachedRows(parts.model, parts.vision, parts.flow, count * (2 if guided else 1))
        self._held: list[list[Segment]] = [[] for _ in range(count * (2 if guided else 1))]

    @torch.no_grad()
    def read(self, windows: Sequence[int], prefixes: Sequence[Prefix]) -> None:
        """Hold these prefixes, and nothing else, in some windows.

        Args:
            windows: numbers from 0 to `count` - 1.
            prefixes: one for each, whose frames are latents; a frame is known again by its tensor.
        """
        wanted = dict(zip(windows, map(list, prefixes), strict=True))
        if len(self._held) > self.count:
            wanted |= {n + self.count: self.parts.without_text(prefix) for n, prefix in wanted.items()}
        new: dict[int, list[Segment]] = {}
        for row, segments in wanted.items():
            same = _same(self._held[row], segments)
            self.cached.forget(row, Document(tuple(segments[:same]), "prompt").length(self.parts.vision.num_tokens))
            self._held[row] = segments
            if len(segments) > same:
                new[row] = segments[same:]
        if new:
            self.cached.append(list(new), list(new.values()))

    def draw(self, windows: Sequence[int], seeds: Sequence[int], sampler: FlowSampler) -> Iterator[Tensor]:
        """Draw a frame behind what each window holds, see `draw_frames`; the noise is that of the seeds."""
        unguided = [n + self.count for n in windows] if sampler.guidance_scale != 1.0 else []
        noise = torch.stack([frame_noise(self.parts, seed) for seed in seeds])
        yield from draw_frames(self.parts, self.cached, windows, unguided, noise, sampler)


def _same(held: Sequence[Segment], wanted: Sequence[Segment]) -> int:
    """How many segments both begin with."""
    for number, (one, other) in enumerate(zip(held, wanted, strict=False)):
        if isinstance(one, Text) or isinstance(other, Text):
            alike = isinstance(one, Text) and isinstance(other, Text) and torch.equal(one.ids, other.ids)
        else:
            alike = one.image is other.image
        if not alike:
            return number
    return min(len(held), len(wanted))

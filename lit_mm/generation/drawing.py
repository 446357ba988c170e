"""One frame in each of some rows, from noise to what is kept, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lit_mm.flow.guidance import guide
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.parts import ModelParts
from lit_mm.generation.rows import CachedRows


def draw_frames(
    parts: ModelParts,
    cached: CachedRows,
    rows: Sequence[int],
    unguided: Sequence[int],
    noise: Tensor,
    sampler: FlowSampler,
) -> Iterator[Tensor]:
    """Draw a frame behind what each row holds; the rows do not keep it.

    Args:
        parts: the model.
        cached: what was read so far.
        rows: R numbers of rows with their conditions.
        unguided: of the rows without them, in the same order; empty where the sampler does not guide.
        noise: (R, N, C) from a standard normal.
        sampler: from noise to frames.

    Yields:
        After each step (R, N, C) float32, what the frames would be if they went on as they go; of the last step, the
        frames themselves.
    """
    predict = cached.frame([*rows, *unguided])

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        doubled, timesteps = (torch.cat([z, z]), torch.cat([t, t])) if unguided else (z, t)
        v = parts.flow.parameterisation.velocity(predict(doubled, timesteps).float(), doubled, timesteps)
        if not unguided:
            return v
        conditional, unconditional = v.chunk(2)
        return guide(conditional, unconditional, sampler.guidance_scale)

    shape = (parts.vision.num_tokens, parts.vision.channels)
    yield from sampler.estimates(velocity, noise, parts.flow.noise_shift(*shape))


def frame_noise(parts: ModelParts, seed: int) -> Tensor:
    """(N, C) from a standard normal, that of a seed."""
    generator = torch.Generator(parts.device).manual_seed(seed)
    return torch.randn(parts.vision.num_tokens, parts.vision.channels, generator=generator, device=parts.device)

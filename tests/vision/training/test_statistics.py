from __future__ import annotations

import pytest
import torch

from lit_mm.mistake import Mistake
from lit_mm.vision.training.statistics import Moments, latent_moments
from tests.vision.training.toys import batch_of, shapes


def test_moments_of_values_far_from_zero() -> None:
    values = 1000 + torch.randn(50, 4, 3, generator=torch.Generator().manual_seed(0))
    moments = Moments(values)
    for part in values.split(7):
        moments.add(part)
    mean, variance = moments.compute()
    torch.testing.assert_close(mean, values.double().mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(variance, values.double().var(0, correction=0), rtol=1e-7, atol=0)


def test_half_precision_and_broken_latents_are_refused() -> None:
    moments = Moments(torch.zeros(1, 2))
    with pytest.raises(TypeError, match="need float32, not torch.bfloat16"):
        moments.add(torch.zeros(1, 2, dtype=torch.bfloat16))
    with pytest.raises(Mistake, match="not finite"):
        moments.add(torch.tensor([[1.0, torch.nan]]))


def test_as_many_pictures_as_asked_for() -> None:
    seen = []

    def encode(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return images.float().mean((2, 3))

    batches = [batch_of(shapes(max(n, 1), 16, seed=n)[:n], [0] * n) for n in (3, 0, 4, 5)]
    mean, _ = latent_moments(encode, batches, 5, torch.device("cpu"))
    assert seen == [3, 2]
    expected = torch.cat([batches[0].frames, batches[2].frames[:2]]).double().mean((0, 2, 3))
    torch.testing.assert_close(mean, expected, rtol=1e-6, atol=0)
    with pytest.raises(Mistake, match="holds no picture"):
        latent_moments(encode, batches[1:2], 5, torch.device("cpu"))

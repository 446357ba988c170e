from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_mm.vision.metrics.features import FeatureNetwork
from lit_mm.vision.metrics.frechet import FrechetDistances
from tests.vision.training.toys import SOURCES


class Values(FeatureNetwork):
    """The features of a 1x1 picture are its three values."""

    name = "values"
    channels = (3,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images]


def samples(mean: Tensor, covariance: Tensor, count: int) -> Tensor:
    """(count, 3, 1, 1) whose mean and covariance are exactly these."""
    raw = torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    raw = raw - raw.mean(0)
    whitened = raw @ torch.linalg.inv(torch.linalg.cholesky(raw.T @ raw / (count - 1))).T
    return (whitened @ torch.linalg.cholesky(covariance).T + mean)[:, :, None, None]


def test_is_the_distance_of_two_gaussians() -> None:
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    spread, other = torch.tensor([4.0, 1.0, 0.25]).double(), torch.tensor([1.0, 9.0, 0.01]).double()
    covariances = [rotation @ torch.diag(v) @ rotation.T for v in (spread, other)]  # they commute: a closed form
    means = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.5, -1.0]]).double()
    expected = float((means[0] - means[1]).square().sum() + (spread.sqrt() - other.sqrt()).square().sum())
    distances = FrechetDistances(Values())
    for part in range(4):  # in parts, under the second source
        true, drawn = (samples(m, c, 40)[part * 10 :][:10] for m, c in zip(means, covariances, strict=True))
        distances.add(drawn, true, torch.ones(10, dtype=torch.int64), SOURCES)
    found = distances.compute(["game"], torch.device("cpu"))
    assert found == {"game": pytest.approx(expected, rel=1e-4)}


def test_few_pictures_give_a_finite_distance_and_one_gives_none() -> None:
    distances = FrechetDistances(Values())
    images = torch.rand(3, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    distances.add(images, images, torch.tensor([0, 0, 1]), SOURCES)
    found = distances.compute(SOURCES, torch.device("cpu"))
    assert found == {"drawings": pytest.approx(0, abs=1e-5)}
    assert distances.compute(SOURCES, torch.device("cpu")) == {}  # begun anew

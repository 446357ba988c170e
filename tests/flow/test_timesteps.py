from __future__ import annotations

import math

import pytest
import torch

from lit_mm.flow.timesteps import noise_shift, sample_timesteps, shift_timesteps

TABLE = [(256, 1152, 8.485), (256, 1024, 8.0), (256, 768, 6.93), (28 * 28, 16, 1.75), (28 * 28, 4, 1.0), (16, 256, 1.0)]


@pytest.mark.parametrize(("tokens", "channels", "alpha"), TABLE)
def test_automatic_shift_is_the_papers_table(tokens, channels, alpha):
    assert noise_shift(tokens, channels) == pytest.approx(alpha, abs=0.005)


@pytest.mark.parametrize(("noise", "shifted"), [(0.1, 0.49), (0.25, 0.74), (0.5, 0.89), (0.75, 0.96)])
def test_shifted_noise_levels_are_the_papers_table(noise, shifted):
    assert 1 - shift_timesteps(torch.tensor(1.0 - noise), 8.485).item() == pytest.approx(shifted, abs=0.005)


def test_shift_equals_its_formula_and_composes():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    s = 1 - t
    torch.testing.assert_close(1 - shift_timesteps(t, 3.0), 3 * s / (1 + 2 * s))
    torch.testing.assert_close(shift_timesteps(shift_timesteps(t, 2.0), 4.0), shift_timesteps(t, 8.0))
    assert (shift_timesteps(t, 1.0) == t).all()


@pytest.mark.parametrize(("tokens", "channels"), [(row[0], row[1]) for row in TABLE])
def test_shift_keeps_the_ends_and_the_digits_between_them(tokens, channels):
    shift = noise_shift(tokens, channels)
    ends = torch.tensor([0.0, 1.0])
    assert torch.equal(shift_timesteps(ends, shift), ends)
    near = torch.cat([1 - 2.0 ** -torch.arange(1, 25), 2.0 ** -torch.arange(1, 25)])
    exact = near.double()  # the same numbers: powers of two
    expected = 1 / (1 + shift * (1 - exact) / exact)  # the odds of noise are multiplied
    torch.testing.assert_close(shift_timesteps(near, shift).double(), expected, rtol=2.0**-22, atol=0)
    assert torch.equal(shift_timesteps(near, 1.0), near)


def test_shift_halfway_multiplies_the_odds_of_noise():
    """SD3's view: the odds of noise against data are multiplied by the shift."""
    t = torch.rand(100, dtype=torch.float64)
    after = shift_timesteps(t, 5.0)
    torch.testing.assert_close((1 - after) / after, 5 * (1 - t) / t)


@pytest.mark.parametrize("shift", [1.0, 4.0])
@pytest.mark.parametrize("distribution", ["uniform", "logit_normal"])
def test_sampled_times_follow_their_distribution(distribution, shift):
    count = 20_000
    t = sample_timesteps(count, torch.Generator().manual_seed(0), distribution, shift).sort().values.double()
    assert t.min() >= 0
    assert t.max() <= 1
    odds = shift * t / (1 - t)  # of data, before the shift
    normal = 0.5 * (1 + torch.erf(odds.log() / math.sqrt(2)))
    expected = odds / (1 + odds) if distribution == "uniform" else normal
    empirical = (torch.arange(count) + 0.5) / count
    assert (empirical - expected).abs().max() < 1.63 / math.sqrt(count)  # Kolmogorov-Smirnov at 1 %


def test_sampled_times_depend_on_the_generator_alone():
    torch.manual_seed(0)
    first = sample_timesteps(8, torch.Generator().manual_seed(3))
    torch.manual_seed(1)
    assert (sample_timesteps(8, torch.Generator().manual_seed(3)) == first).all()
    assert (sample_timesteps(8, torch.Generator().manual_seed(4)) != first).any()

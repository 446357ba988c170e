from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from docs.gaussian_loss import gaussian_loss
from lit_mm.backbone import Transformer
from lit_mm.command_line.token_statistics import measure
from lit_mm.flow import FlowMatching, FlowSample
from lit_mm.flow.parameterisation import VelocityPrediction
from lit_mm.flow.preconditioning import GaussianPreconditioning
from lit_mm.flow.token_statistics import TokenStatistics, load_statistics, save_statistics
from lit_mm.module import LitMultimodal
from lit_mm.vision import Pixels, Rae
from tests.helpers.program import ROOT, SMALL

CHANNELS = 6
VARIANCES = torch.tensor([9.0, 2.0, 1.0, 0.3, 0.05, 0.0])
TIMES = (0.0, 0.1, 0.5, 0.9, 0.98)


def gaussian() -> tuple[Tensor, Tensor, Tensor]:
    """Mean, covariance and axes of tokens with `VARIANCES`."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, generator=generator, dtype=torch.float64)).Q
    mean = torch.randn(CHANNELS, generator=generator)
    return mean, (axes * VARIANCES.double()) @ axes.T, axes.float()


def frames(time: float, count: int = 4000) -> FlowSample:
    """Many frames of 16 tokens."""
    mean, _, axes = gaussian()
    generator = torch.Generator().manual_seed(1)
    shape = (count, 16, CHANNELS)
    data = mean + (torch.randn(shape, generator=generator) * VARIANCES.sqrt()) @ axes.T
    noise = torch.randn(shape, generator=generator)
    return FlowSample(data, noise, torch.full((count,), time))


@pytest.fixture
def gauss() -> GaussianPreconditioning:
    return GaussianPreconditioning(*gaussian()[:2])


@pytest.mark.parametrize("time", TIMES)
def test_an_output_of_zero_is_the_best_guess_of_gaussian_data(gauss: GaussianPreconditioning, time: float) -> None:
    flow, sample = FlowMatching(), frames(time)
    flow.parameterisation = gauss
    loss = float(flow.loss(torch.zeros_like(sample.data), sample).mean())
    assert loss == pytest.approx(gaussian_loss(VARIANCES, torch.tensor([time])), rel=0.02)
    for error in (0.2, -0.2):
        assert float(flow.loss(torch.full_like(sample.data, error), sample).mean()) > loss


@pytest.mark.parametrize("time", TIMES)
def test_what_is_left_to_learn_has_unit_variance(gauss: GaussianPreconditioning, time: float) -> None:
    sample = frames(time)
    guess = gauss.velocity(torch.zeros_like(sample.data), sample.noised, sample.timesteps)
    # The output is linear in the velocity: its scale along each axis is that of a unit output.
    one = sample[torch.tensor([0])]
    scale = torch.stack(
        [
            (gauss.velocity(unit.expand_as(one.data), one.noised, one.timesteps) - guess[:1])[0, 0].norm()
            for unit in torch.eye(CHANNELS)
        ]
    )
    rest = ((sample.velocity - guess) @ gauss.axes).flatten(0, 1)
    held = gauss.variances > 1e-3
    assert int(held.sum()) == CHANNELS - 1
    torch.testing.assert_close((rest / scale).std(0)[held], torch.ones(CHANNELS - 1), rtol=0.02, atol=0)
    assert rest.mean(0).abs().max() < 0.05
    assert rest[:, ~held].abs().max() < 1e-3  # nothing is left of what has no variance


@pytest.mark.parametrize("time", TIMES)
def test_the_network_is_shown_what_least_squares_makes_of_the_noisy_tokens(
    gauss: GaussianPreconditioning, time: float
) -> None:
    """Regressing the clean tokens on the noisy ones gives the same guess, whose axes are scaled to unit variance."""
    sample = frames(time)
    shown = gauss.network_input(sample.noised, sample.timesteps).flatten(0, 1)
    axes, variances = gauss.axes.double(), gauss.variances.double()
    clean, noisy = sample.data.flatten(0, 1).double(), sample.noised.flatten(0, 1).double()
    ones = torch.ones(len(noisy), 1, dtype=torch.float64)
    fitted = torch.cat([noisy, ones], 1) @ torch.linalg.lstsq(torch.cat([noisy, ones], 1), clean).solution
    expected = (fitted - clean.mean(0)) @ axes / variances.sqrt()
    there = variances > 0.05  # axes that hold next to nothing are made smaller still
    torch.testing.assert_close(shown.double()[:, there], expected[:, there], rtol=0.1, atol=0.12)


@pytest.mark.parametrize("covariance", [torch.eye(CHANNELS), torch.zeros(CHANNELS, CHANNELS), gaussian()[1]])
@pytest.mark.parametrize("time", [0.0, 1e-6, 1 - 1e-6, 1.0])
def test_the_ends_are_finite_whatever_the_covariance(covariance: Tensor, time: float) -> None:
    preconditioning = GaussianPreconditioning(torch.ones(CHANNELS), covariance)
    z, t = torch.randn(3, 4, CHANNELS), torch.full((3,), time)
    for made in (preconditioning.network_input(z, t), preconditioning.velocity(torch.randn_like(z), z, t)):
        assert made.isfinite().all()
        assert made.dtype == torch.float32


def test_half_precision_leaves_the_statistics_whole(gauss: GaussianPreconditioning) -> None:
    sample = frames(0.3, count=8)
    given = torch.zeros_like(sample.data), sample.noised, sample.timesteps
    expected = gauss.velocity(*given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gauss.velocity(*given), expected)
    assert torch.equal(gauss.bfloat16().velocity(*given), expected)
    assert not gauss.state_dict()


def test_statistics_choose_the_parameterisation() -> None:
    assert isinstance(FlowMatching(statistics="rae_tiny").parameterisation, GaussianPreconditioning)
    assert isinstance(FlowMatching().parameterisation, VelocityPrediction)


# ---- messages


def sentence(error: BaseException, *parts: str) -> None:
    said = str(error)
    assert "\n" not in said
    for part in parts:
        assert part in said


def test_predicting_x_takes_no_statistics() -> None:
    with pytest.raises(ValueError, match="statistics") as error:
        FlowMatching("x", statistics="rae_tiny")
    sentence(error.value, "model.flow.statistics is for prediction 'v'", "model.flow.prediction is 'x'")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError) as error:
        FlowMatching(statistics="nowhere.safetensors")
    sentence(error.value, "'nowhere.safetensors'", "python -m lit_mm.command_line.token_statistics")


def test_another_file_is_refused(tmp_path: Path) -> None:
    text, tensors, bare = (tmp_path / name for name in ("text", "tensors", "bare"))
    text.write_text("not tensors at all")
    save_file({"weight": torch.ones(2)}, tensors, metadata={"vision_fingerprint": "x"})
    save_file({"mean": torch.ones(2), "covariance": torch.eye(2)}, bare)
    for file in (text, tensors, bare):
        with pytest.raises(ValueError, match=re.escape(str(file))) as error:
            FlowMatching(statistics=str(file))
        sentence(error.value, "does not hold token statistics")


def test_statistics_of_another_tokenizer_are_refused() -> None:
    def module(vision: Pixels | Rae) -> LitMultimodal:
        flow = FlowMatching(statistics="rae_tiny")
        return LitMultimodal(lambda size: Transformer(size, 32, 1, 2, 1), vision, 8192, flow)

    module(Rae(folder="rae_tiny"))
    with pytest.raises(ValueError, match="statistics") as error:
        module(Pixels(64, 16))
    sentence(error.value, "'rae:", "'pixels:64/16'", "token_statistics")


# ---- measuring


def test_statistics_are_mean_and_covariance() -> None:
    tokens = 5 + 2 * torch.randn(40, 16, CHANNELS, generator=torch.Generator().manual_seed(0))
    statistics = TokenStatistics(CHANNELS)
    for some in tokens.split([1, 9, 30]):
        statistics.add(some)
    mean, covariance = statistics.result()
    torch.testing.assert_close(mean, tokens.flatten(0, 1).mean(0))
    torch.testing.assert_close(covariance, torch.cov(tokens.flatten(0, 1).T, correction=0), rtol=1e-5, atol=1e-5)


def test_statistics_are_read_as_they_were_written(tmp_path: Path) -> None:
    mean, covariance, _ = gaussian()
    save_statistics(tmp_path / "file", mean, covariance, "pixels:1/1")
    loaded = load_statistics(str(tmp_path / "file"))
    assert torch.equal(loaded[0], mean)
    assert torch.equal(loaded[1], covariance)
    assert loaded[2] == "pixels:1/1"


def test_a_run_s_frames_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    seen: list[Tensor] = []
    encode = Pixels.encode
    monkeypatch.setattr(Pixels, "encode", lambda self, images: seen.append(encode(self, images)) or seen[-1])
    eye = ["--model.vision=configs/vision/pixels.yaml"]
    measure(["--config=configs/tiny.yaml", *SMALL, *eye], tmp_path / "tokens", rows=4)
    mean, covariance, fingerprint = load_statistics(str(tmp_path / "tokens"))
    tokens = torch.cat(seen).flatten(0, 1).double()
    torch.testing.assert_close(mean, tokens.mean(0).float())
    torch.testing.assert_close(covariance, torch.cov(tokens.T, correction=0).float(), rtol=1e-4, atol=1e-5)
    assert fingerprint == "pixels:64/16"
    assert f"{len(tokens)} tokens" in capsys.readouterr().out

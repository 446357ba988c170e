from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_mm.mistake import MissingFile, Mistake
from lit_mm.vision import Rae
from lit_mm.vision.formats.folder import save_folder
from lit_mm.vision.rae_network import RaeNetwork
from tests.vision.conftest import SMALL

GRID, CHANNELS = 4, 64


@pytest.fixture
def stat(tmp_path: Path) -> Path:
    """A file as the RAE collection publishes them."""
    generator = torch.Generator().manual_seed(9)
    shape = (CHANNELS, GRID, GRID)
    content = {"mean": torch.randn(shape, generator=generator), "var": torch.rand(shape, generator=generator)}
    content["var"][0, 0, 0] = 0  # a channel that is constant there
    torch.save(content, tmp_path / "stat.pt")
    return tmp_path / "stat.pt"


def rae_with(statistics: Path | None) -> Rae:
    torch.manual_seed(0)
    return Rae(
        encoder=SMALL.encoder,
        image_size=32,
        pretrained=False,
        encoder_args=SMALL.encoder_args,
        statistics=None if statistics is None else str(statistics),
    )


def test_latents_are_those_of_rae(stat: Path, images: Tensor) -> None:
    """Bytetriper/RAE: z as (C, h, w), less the mean, divided by the root of variance + 1e-5."""
    content = torch.load(stat, weights_only=True)
    plain = rae_with(None).encode(images).transpose(1, 2).unflatten(2, (GRID, GRID))
    expected = (plain - content["mean"]) / (content["var"] + 1e-5).sqrt()
    latents = rae_with(stat).encode(images)
    torch.testing.assert_close(latents, expected.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_a_decoder_sees_what_the_encoder_gave(network: RaeNetwork, stat: Path, images: Tensor, tmp_path: Path) -> None:
    content = torch.load(stat, weights_only=True)
    plain = Rae(str(save_folder(network, tmp_path / "plain", compact=True)))
    network.statistics.set(content["mean"].flatten(1).T, content["var"].flatten(1).T)
    rae = Rae(str(save_folder(network, tmp_path / "rae", compact=True)))
    with torch.no_grad():
        assert (rae.encode(images) - plain.encode(images)).abs().max() > 1
    difference = rae.decode(rae.encode(images)).int() - plain.decode(plain.encode(images)).int()
    assert difference.abs().max() <= 1
    # The same statistics, taken from that folder for an encoder with other weights.
    torch.testing.assert_close(rae_with(tmp_path / "rae").statistics.std, network.statistics.std)
    with pytest.raises(MissingFile, match="'no_such' does not exist"):
        rae_with(Path("no_such"))


def test_fingerprint_depends_on_them(stat: Path, tmp_path: Path) -> None:
    content = torch.load(stat, weights_only=True)
    content["mean"][3, 2, 1] += 1e-3
    torch.save(content, tmp_path / "other.pt")
    names = {rae_with(path).fingerprint() for path in (None, stat, tmp_path / "other.pt")}
    assert len(names) == 3
    assert rae_with(stat).fingerprint() in names


def test_they_stay_float32_in_a_bfloat16_model(stat: Path, images: Tensor) -> None:
    rae = rae_with(stat)
    mean, std = rae.statistics.mean.clone(), rae.statistics.std.clone()
    for cast in (rae.to(torch.bfloat16), rae.half(), rae.bfloat16()):
        for part in (cast.statistics, cast.encoder.pixels):
            assert part.mean.dtype == part.std.dtype == torch.float32
        assert torch.equal(cast.statistics.mean, mean)
        assert torch.equal(cast.statistics.std, std)
    assert next(rae.encoder.vit.parameters()).dtype == torch.bfloat16
    latents = rae.encode(images)
    assert latents.dtype == torch.float32
    with torch.no_grad():
        tokens = rae.encoder(images / 255)
    assert tokens.dtype == torch.bfloat16
    assert torch.equal(latents, (tokens.float() - mean) / std)


def test_they_follow_to_another_device(stat: Path) -> None:
    moved = rae_with(stat).to("meta").statistics
    assert moved.mean.device.type == moved.std.device.type == "meta"


ONES = torch.ones(CHANNELS, GRID, GRID)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"var": ONES}, "lacks mean: it holds var"),
        ({"mean": ONES}, "lacks var: it holds mean"),
        ({}, "lacks mean, var: it holds nothing"),
        ({"mean": ONES, "var": ONES, "count": 3}, "has more: it holds count, mean, var"),
        ({"mean": ONES, "std": ONES}, "lacks var: it holds mean, std"),
        ({"mean": None, "var": ONES}, "holds a NoneType as 'mean'"),
        ({"mean": ONES[:32], "var": ONES}, r"holds 'mean' of shape \(32, 4, 4\); this encoder needs \(64, 4, 4\)"),
        ({"mean": ONES, "var": ONES.flatten(1).T}, r"holds 'var' of shape \(16, 64\); this encoder needs \(64, 4, 4\)"),
        ({"mean": ONES.bfloat16(), "var": ONES}, "holds 'mean' in bfloat16; statistics of latents must be float32"),
        ({"mean": ONES, "var": ONES.half()}, "holds 'var' in float16; statistics of latents must be float32"),
        ({"mean": ONES, "var": ONES.long()}, "holds 'var' in int64"),
        ({"mean": ONES * torch.nan, "var": ONES}, "holds 'mean' with values that are not finite"),
        ({"mean": ONES, "var": ONES / 0}, "holds 'var' with values that are not finite"),
        ({"mean": ONES, "var": -ONES}, "holds 'var' with values below 0"),
        ([1], "holds a list; a dict"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, str) else "",
)
def test_broken_files_are_refused(content: Any, sentence: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "stat.pt")
    with pytest.raises(Mistake, match=rf"stat\.pt' {sentence}") as error:
        rae_with(tmp_path / "stat.pt")
    assert "\n" not in str(error.value)


def test_what_is_no_file_of_tensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stat.pt").write_text("nothing")
    with pytest.raises(Mistake, match=r"stat\.pt' is not a whole file of tensors"):
        rae_with(tmp_path / "stat.pt")


def test_folders_without_them_are_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor.clone() for name, tensor in tensors.items() if not name.startswith("statistics.")}
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(Mistake, match=r"model\.safetensors' holds no statistics of latents: their mean is 0 and"):
        rae_with(folder)
    assert Rae(str(folder)).statistics.std.eq(1).all()


def test_measured_ones_are_checked(network: RaeNetwork) -> None:
    zeros, ones = torch.zeros(16, CHANNELS), torch.ones(16, CHANNELS)
    network.statistics.set(zeros.double(), ones.double())
    assert network.statistics.std.dtype == torch.float32
    with pytest.raises(Mistake, match="holds 'variance' in bfloat16"):
        network.statistics.set(zeros, ones.bfloat16())
    with pytest.raises(Mistake, match=r"holds 'mean' of shape \(64, 16\); this encoder needs \(16, 64\)"):
        network.statistics.set(zeros.T, ones)
    with pytest.raises(Mistake, match="'variance' with values that are not finite"):
        network.statistics.set(zeros, ones / 0)

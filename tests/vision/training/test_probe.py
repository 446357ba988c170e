from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from data_modules.image_text import ImageTextDataModule
from data_modules.mixing.loader_config import LoaderConfig
from lit_mm.mistake import Mistake
from lit_mm.vision import Dual, Pixels, Rae, VisualTokenizer
from lit_mm.vision.training.lit_probe import LitTokenizerProbe, results_table
from lit_mm.vision.training.probe import fit_logistic, linear_probe
from tests.helpers.program import ROOT


def blobs(count: int, spread: float, seed: int) -> tuple[Tensor, Tensor]:
    """Points around three centres in eight dimensions, in channels of very different scale and offset."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    centres = 4 * torch.eye(3, 8)
    points = centres[labels] + spread * torch.randn(count, 8, generator=generator)
    return points * 10.0 ** torch.arange(-3, 5) + 7, labels


def test_what_is_separable_is_told_apart() -> None:
    result = linear_probe(*blobs(300, 0.5, seed=0), *blobs(200, 0.5, seed=1))
    assert result.accuracy > 0.99
    assert result.balanced_accuracy > 0.99
    assert result.chance == pytest.approx(1 / 3)
    assert result == linear_probe(*blobs(300, 0.5, seed=0), *blobs(200, 0.5, seed=1))


def test_noise_is_told_apart_by_chance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(600, 20, generator=generator), torch.randn(400, 20, generator=generator)
    train_labels = torch.randint(0, 4, (600,), generator=generator)
    result = linear_probe(train, train_labels, test, torch.randint(0, 4, (400,), generator=generator))
    assert abs(result.accuracy - 0.25) < 0.08
    assert abs(result.balanced_accuracy - 0.25) < 0.08


def test_accuracies_are_those_of_their_definitions() -> None:
    """Two labels can be told apart by the only feature, the third looks like the second."""
    train = torch.tensor([-1.0] * 60 + [1.0] * 90 + [1.0] * 10)[:, None]
    train_labels = torch.tensor([0] * 60 + [1] * 90 + [2] * 10)
    test = torch.tensor([-1.0] * 10 + [1.0] * 6 + [1.0] * 4)[:, None]
    test_labels = torch.tensor([0] * 10 + [1] * 6 + [2] * 4)
    result = linear_probe(train, train_labels, test, test_labels)
    assert result.accuracy == pytest.approx(16 / 20)
    assert result.balanced_accuracy == pytest.approx((1 + 1 + 0) / 3)
    assert result.majority == pytest.approx(6 / 20)
    assert result.chance == pytest.approx(1 / 3)
    right = torch.tensor([1.0] * 16 + [0.0] * 4)
    assert result.standard_error == pytest.approx(float(right.std(unbiased=False)) / 20**0.5)


def test_the_fit_is_the_optimum() -> None:
    """Where the derivative of the convex objective is zero: mean of x (p - y) + penalty w = 0."""
    features, labels = blobs(120, 3.0, seed=3)
    features = ((features - features.mean(0)) / features.std(0)).double()
    weight, bias = fit_logistic(features, labels, torch.zeros(8, 3).double(), torch.zeros(3).double(), penalty=0.01)
    error = ((features @ weight + bias).softmax(1) - torch.nn.functional.one_hot(labels, 3)) / 120
    torch.testing.assert_close(features.T @ error, -0.01 * weight, atol=2e-4, rtol=0)
    torch.testing.assert_close(error.sum(0), torch.zeros(3).double(), atol=2e-4, rtol=0)


def test_too_few_items_are_said() -> None:
    with pytest.raises(Mistake, match="more than 32 items to train on and any to test; got 8, 3"):
        linear_probe(torch.zeros(8, 2), torch.zeros(8).long(), torch.zeros(3, 2), torch.zeros(3).long())


# ---- tokenizers, on pictures of one colour whose label is the colour


def write_pictures(folder: Path, count: int, seed: int) -> None:
    """Reddish and bluish pictures with noise, in random order."""
    random = np.random.default_rng(seed)
    folder.mkdir()
    lines = []
    for number in range(count):
        label = "warm" if random.random() < 0.6 else "cold"
        colour = np.array([180, 60, 60] if label == "warm" else [60, 60, 180])
        picture = (colour + random.integers(-50, 51, (16, 16, 3))).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{number:03d}.png")
        lines.append(json.dumps({"file_name": f"{number:03d}.png", "caption": f"number {number}", "kind": label}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))


class Blind(Pixels):
    """Sees the same in every picture, and draws it grey."""

    def encode(self, images: Tensor) -> Tensor:
        return torch.zeros_like(super().encode(images))


@pytest.fixture
def data(tmp_path: Path) -> ImageTextDataModule:
    write_pictures(tmp_path / "train", 60, seed=0)
    write_pictures(tmp_path / "val", 25, seed=1)
    return ImageTextDataModule(
        train=str(tmp_path / "train"),
        val=str(tmp_path / "val"),
        caption_column="kind",
        condition_dropout=0.0,
        tokenizer=str(ROOT / "data/tiny/tokenizer.json"),
        loader=LoaderConfig(row_length=64, rows=2, workers=0),
        image_size=16,
        tokens_per_frame=1,
    )


def validate(model: LitTokenizerProbe, data: ImageTextDataModule, folder: Path) -> dict[str, float]:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    pl.Trainer(default_root_dir=folder, accelerator="cpu", **quiet).validate(model, data, verbose=False)
    return model.validation_results


def test_tokenizers_are_judged_by_what_they_keep(
    tmp_path: Path, data: ImageTextDataModule, capsys: pytest.CaptureFixture
) -> None:
    blind: VisualTokenizer = Blind(16, 8)
    encoder = Rae(
        encoder="vit_base_patch16_siglip_256",
        image_size=16,
        pretrained=False,
        encoder_args={"embed_dim": 32, "depth": 1, "num_heads": 2, "patch_size": 8},
    )
    vision = {"pixels": Pixels(16, 8), "blind": blind, "encoder": encoder, "dual": Dual(blind, Pixels(16, 8))}
    results = validate(LitTokenizerProbe(vision, ["image_text"]), data, tmp_path)
    val = [json.loads(line) for line in (tmp_path / "val" / "metadata.jsonl").read_text().splitlines()]
    warm = sum(row["kind"] == "warm" for row in val) / 25

    of = {name: {k.split("/")[3]: v for k, v in results.items() if k.split("/")[2] == name} for name in vision}
    assert of["pixels"]["probe_accuracy"] == 1
    assert of["blind"]["probe_accuracy"] == of["blind"]["probe_majority"] == pytest.approx(warm)
    assert of["blind"]["probe_balanced_accuracy"] == of["blind"]["probe_chance"] == 0.5
    assert of["dual"]["probe_balanced_accuracy"] == 0.5, "it reads by the blind one"

    assert of["pixels"]["psnr"] == of["dual"]["psnr"] > 58
    assert "psnr" not in of["encoder"], "it has no decoder"
    pictures = [np.asarray(Image.open(tmp_path / "val" / row["file_name"]), dtype=float) for row in val]
    psnr = [10 * np.log10(255**2 / np.mean((picture - 128) ** 2)) for picture in pictures]
    assert of["blind"]["psnr"] == pytest.approx(np.mean(psnr), abs=0.01)

    assert json.loads((tmp_path / "tokenizers.json").read_text()) == results
    shown = capsys.readouterr().out
    assert all(name in shown for name in vision)
    assert f"{warm:.3f}" in shown


def test_a_picture_that_is_listed_often_counts_once(tmp_path: Path, data: ImageTextDataModule) -> None:
    once = validate(LitTokenizerProbe({"pixels": Pixels(16, 8)}, ["image_text"]), data, tmp_path)
    for split in ("train", "val"):
        listed = tmp_path / split / "metadata.jsonl"
        lines = listed.read_text().splitlines()
        listed.write_text("\n".join(lines + lines[:7] * 5))
    again = validate(LitTokenizerProbe({"pixels": Pixels(16, 8)}, ["image_text"]), data, tmp_path)
    probed = {key for key in once if "/probe_" in key}
    assert len(probed) == len(asdict(linear_probe(*blobs(64, 1, 0), *blobs(9, 1, 1))))
    assert {key: again[key] for key in probed} == {key: once[key] for key in probed}


def test_the_table_has_a_row_for_each_tokenizer_and_gaps_where_nothing_was_measured() -> None:
    results = {
        "val/drawings/a/psnr": 20.04,
        "val/drawings/a/probe_accuracy": 0.5,
        "val/drawings/a/probe_standard_error": 0.023,
        "val/drawings/a/probe_majority": 0.4,
        "val/drawings/a/probe_chance": 0.1,
        "val/drawings/b/probe_accuracy": 0.75,
        "val/game/a/psnr": 30.0,
    }
    table = results_table(results)
    columns = {str(column.header): list(column.cells) for column in table.columns}
    assert columns == {
        "tokenizer": ["a", "b"],
        "drawings PSNR (dB)": ["20.0", ""],
        "drawings probe": ["0.500", "0.750"],
        "game PSNR (dB)": ["30.0", ""],
    }
    assert "0.400" in str(table.caption)
    assert "up to 0.023" in str(table.caption)


def test_tokenizers_for_pictures_of_several_sizes_are_refused() -> None:
    with pytest.raises(Mistake, match="model.vision needs tokenizers for pictures of one size; found"):
        LitTokenizerProbe({"a": Pixels(16, 8), "b": Pixels(32, 8)}, [])
    with pytest.raises(Mistake, match="found none"):
        LitTokenizerProbe({}, [])


def test_a_source_that_is_not_there_is_named(tmp_path: Path, data: ImageTextDataModule) -> None:
    model = LitTokenizerProbe({"pixels": Pixels(16, 8)}, ["emoji"])
    with pytest.raises(Mistake, match="model.labelled names 'emoji', but data has no 'train' pictures of it"):
        validate(model, data, tmp_path)

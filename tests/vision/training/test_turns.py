"""Two ranks of which one has a batch without pictures stay in step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data_modules.image_text import ImageTextDataModule
from data_modules.mixing.loaders import LoaderConfig
from data_modules.mixing.rows import Share, TrainingRows
from data_modules.mixture import MixtureDataModule
from data_modules.text import TextDataModule
from lit_mm.vision.training.turns import take_turns
from tests.helpers.program import ROOT
from tests.helpers.runs import run_all

STEPS = 4
MIXTURE = """
class_path: data_modules.mixture.MixtureDataModule
init_args:
  tokenizer: data/tiny/tokenizer.json
  loader: {row_length: 128, rows: 1, workers: 0}
  weights: {text: 0.8, pictures: 0.2}
  sources:
    text: {class_path: data_modules.text.TextDataModule, init_args: {train: data/tiny/text/train, window: 120}}
    pictures: {class_path: data_modules.image_text.ImageTextDataModule, init_args: {train: data/tiny/image_text/train}}
"""


def frames_of_ranks() -> list[list[int]]:
    """How many pictures each of two ranks has at each step, by the plan of rows."""
    data = MixtureDataModule(
        sources={
            "text": TextDataModule(train="data/tiny/text/train", window=120),
            "pictures": ImageTextDataModule(train="data/tiny/image_text/train"),
        },
        weights={"text": 0.8, "pictures": 0.2},
        tokenizer="data/tiny/tokenizer.json",
        loader=LoaderConfig(row_length=128, rows=1, workers=0),
        image_size=64,
        tokens_per_frame=16,
    )
    data.setup("fit")
    ranks = [iter(TrainingRows(data.reader("train"), data.source_weights(), 0, Share(r, 2, 1), {})) for r in (0, 1)]
    return [[len(next(rows).frames) for _ in range(STEPS)] for rows in ranks]


@pytest.mark.parametrize("weight", [0.75, 10.0])
def test_the_adversary_pulls_as_strongly_as_its_weight_says(weight: float) -> None:
    """Where one loss pulls along the first number of the last layer and the other along the second, at any strength."""
    layer = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([layer], lr=1.0)
    module = SimpleNamespace(
        global_step=0,
        last_layer=layer,
        log_dict=lambda values: None,
        optimizers=lambda: [optimizer],
        lr_schedulers=lambda: [SimpleNamespace(step=lambda: None)],
        manual_backward=lambda loss: loss.backward(),
        clip=lambda: None,
        update_average=lambda: None,
    )
    term = SimpleNamespace(weight=weight, adversarial_start=0, discriminator_start=1)
    adversary: Any = SimpleNamespace(term=term, decoder_loss=lambda drawn, generator: 0.01 * drawn)
    take_turns(module, adversary, 5 * layer[0], layer[1], torch.zeros(0), torch.Generator())
    assert layer.tolist() == pytest.approx([-5, -5 * weight], rel=1e-3)


@pytest.mark.slow
def test_a_rank_without_pictures_takes_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    both = list(zip(*frames_of_ranks(), strict=True))
    assert any(min(counts) == 0 < max(counts) for counts in both)
    (tmp_path / "data.yaml").write_text(MIXTURE)

    def arguments(name: str, *more: str) -> list[str]:
        (tmp_path / name).mkdir()
        return [
            "fit",
            "--config=configs/rae/tiny.yaml",
            f"--data={tmp_path / 'data.yaml'}",
            "--model.pretrained=false",
            "--model.rae.encoder_args={embed_dim: 32, depth: 1, num_heads: 2}",
            "--model.rae.decoder_hidden_size=32",
            "--model.rae.decoder_num_hidden_layers=1",
            "--model.rae.decoder_num_attention_heads=2",
            "--model.judge=null",
            f"--trainer.logger.save_dir={tmp_path / name}",
            f"--trainer.max_steps={STEPS}",
            "--trainer.devices=2",
            "--trainer.enable_progress_bar=false",
            "--trainer.callbacks=tests/vision/training/callbacks.yaml",
            f"--trainer.callbacks.folder={tmp_path / name}",
            *more,
        ]

    adversary = [
        "--trainer.strategy=ddp_find_unused_parameters_true",
        "--model.adversarial.weight=0.75",
        "--model.adversarial.network=tests.vision.training.toys.ToyFeatures",
        "--model.adversarial.discriminator_start=0",
        "--model.adversarial.adversarial_start=1",
    ]
    run_all(tmp_path, [arguments("plain", "--trainer.strategy=ddp"), arguments("adversary", *adversary)], ranks=2)
    for name in ("plain", "adversary"):
        first, second = ((tmp_path / name / f"weights{rank}.json").read_text() for rank in (0, 1))
        assert first == second

"""Two ranks of which one has a batch without pictures stay in step."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_modules.image_text import ImageTextDataModule
from data_modules.mixing.loaders import LoaderConfig
from data_modules.mixing.rows import Share, TrainingRows
from data_modules.mixture import MixtureDataModule
from data_modules.text import TextDataModule
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

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data_modules.image_text import ImageTextDataModule
from data_modules.mixing.loader_config import LoaderConfig
from data_modules.mixing.rows import Share, TrainingRows
from lit_mm.mistake import Mistake
from lit_mm.packing import pack_rows
from lit_mm.sequence import PackedRow
from lit_mm.training.schedule import WarmupCosine
from lit_mm.vision import Rae
from lit_mm.vision.formats.folder import load_folder, save_folder
from lit_mm.vision.rae_network import RaeNetwork
from lit_mm.vision.training.lit_rae import LitRae, export
from tests.helpers.program import ROOT
from tests.helpers.runs import run_all
from tests.vision.conftest import SMALL
from tests.vision.training.toys import Pictures, batch_of, rae, shapes, trainer


def mean_psnr(rae: Rae, images: Tensor) -> float:
    drawn = rae.decode(rae.encode(images))
    return float((-10 * ((drawn.double() - images) / 255).square().mean(dim=(1, 2, 3)).log10()).mean())


class Same(Pictures):
    """One batch for ever."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images

    def batch(self, step: int) -> object:
        return batch_of(self.images, [0] * len(self.images), seed=step)


def test_learns_a_handful_of_pictures_and_leaves_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    images = shapes(8, 32)
    lit = rae()
    assert (lit.image_size, lit.tokens_per_frame) == (32, 16)
    before = mean_psnr(Rae(str(save_folder(lit.rae, tmp_path / "untrained"))), images)
    with caplog.at_level("INFO"):
        trainer(tmp_path, 180).fit(lit, Same(images))
    after = mean_psnr(Rae(str(tmp_path / "rae")), images)
    assert before < 12
    assert after > 21
    assert f"autoencoder: {tmp_path / 'rae'}" in caplog.text + capsys.readouterr().err


def test_only_the_decoder_learns_unless_asked_otherwise(folder: Path, tmp_path: Path) -> None:
    settings = {"ema_decay": 0.0, "schedule": WarmupCosine(1)}
    lit = LitRae(SMALL, start_from=str(folder), **settings)
    trainer(tmp_path, 3).fit(lit, Pictures())
    start, end = Rae(str(folder)), Rae(str(tmp_path / "rae"))
    assert start.fingerprint() == end.fingerprint()
    assert start.decoder is not None
    assert end.decoder is not None
    moved = [not torch.equal(a, b) for a, b in zip(start.decoder.parameters(), end.decoder.parameters(), strict=True)]
    assert all(moved)
    trainer(tmp_path / "joint", 3).fit(
        LitRae(SMALL, start_from=str(folder), train_encoder=True, **settings), Pictures()
    )
    assert Rae(str(tmp_path / "joint/rae")).fingerprint() != start.fingerprint()


def test_noise_of_the_tokens_is_uniform_in_size_up_to_tau(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr("lit_mm.vision.training.lit_rae.draw", lambda decoder, encoder, tokens: seen.append(tokens))
    lit = LitRae(SMALL, start_from=str(folder), noise_tau=0.8)
    images = shapes(1, 32).expand(400, -1, -1, -1)
    lit.draw_for_training(images, torch.Generator().manual_seed(0))
    sizes = (seen[0] - lit.rae.encoder(images[:1] / 255)).std(dim=(1, 2))
    share = sizes.detach().sort().values.numpy() / 0.8
    assert np.abs(share - np.linspace(0, 1, 400)).max() < 0.1


def test_statistics_are_those_of_float64_even_in_a_run_in_bfloat16(tmp_path: Path, folder: Path) -> None:
    lit = LitRae(SMALL, start_from=str(folder), statistics_pictures=10)
    data = Pictures()
    trainer(tmp_path, 1, precision="bf16-mixed").fit(lit, data)
    pictures = torch.cat([data.batch(step).frames for step in range(3)])[:10]
    exact = copy.deepcopy(lit.rae.encoder).double()
    exact.pixels = torch.nn.Identity()  # the rest of it is float32
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = lit.rae.encoder(pictures / 255).double()
    normalised = (pictures.double() / 255 - lit.rae.encoder.pixels.mean.double()) / lit.rae.encoder.pixels.std.double()
    with torch.no_grad():
        tokens = exact.vit.forward_features(normalised)
    statistics = load_folder(tmp_path / "rae").statistics
    tight = {"atol": 2e-5, "rtol": 1e-5}
    torch.testing.assert_close(statistics.mean.double(), tokens.mean(0), **tight)
    torch.testing.assert_close(statistics.std.double(), (tokens.var(0, correction=0) + 1e-5).sqrt(), **tight)
    assert not torch.allclose(rounded.mean(0), tokens.mean(0), **tight)


def test_statistics_change_latents_but_not_what_is_learned(tmp_path: Path, folder: Path) -> None:
    for name, pictures in (("with", 8), ("without", 0)):
        lit = LitRae(SMALL, start_from=str(folder), ema_decay=0.0, statistics_pictures=pictures)
        trainer(tmp_path / name, 3).fit(lit, Pictures())
    one, other = (load_folder(tmp_path / name / "rae") for name in ("with", "without"))
    assert all(torch.equal(a, b) for a, b in zip(one.decoder.parameters(), other.decoder.parameters(), strict=True))
    images = shapes(2, 32)
    assert not torch.allclose(one.encode(images), other.encode(images), atol=0.1)
    torch.testing.assert_close(one.decode(one.encode(images)), other.decode(other.encode(images)), atol=1e-4, rtol=0)


def test_settings_that_cannot_work_are_refused(folder: Path) -> None:
    with pytest.raises(Mistake, match=r"model\.start_from '.*small' .*: it has decoder_hidden_size \d+, not 96$"):
        LitRae(replace(SMALL, decoder_hidden_size=96), start_from=str(folder))
    with pytest.raises(Mistake, match=r"model\.statistics_pictures needs a frozen encoder"):
        LitRae(SMALL, train_encoder=True, statistics_pictures=8)


def test_batches_without_pictures_are_passed_over(tmp_path: Path) -> None:
    row = PackedRow((), number=0, seed=0)
    empty = pack_rows([row], length=8, tokens_per_frame=16, image_size=32, pad_id=0, sources=("drawings", "game"))
    lit = rae()
    lit.trainer = trainer(tmp_path, 1)
    assert lit.training_step(empty, 0) is None
    assert lit.validation_step(empty, 0) is None


def test_a_checkpoint_alone_is_exported(tmp_path: Path) -> None:
    images = shapes(2, 32)
    for name, settings in (("joint", {}), ("frozen", {"train_encoder": False, "statistics_pictures": 8})):
        runner = trainer(tmp_path / name, 2)
        runner.fit(rae(**settings), Pictures())
        runner.save_checkpoint(tmp_path / f"{name}.ckpt")
        exported = Rae(str(export(tmp_path / f"{name}.ckpt", tmp_path / "exported" / name)))
        finished = Rae(str(tmp_path / name / "rae"))
        assert exported.fingerprint() == finished.fingerprint()
        assert torch.equal(exported.decode(exported.encode(images)), finished.decode(finished.encode(images)))
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(Mistake, match=r"other\.ckpt' is not a checkpoint of an autoencoder"):
        export(tmp_path / "other.ckpt", tmp_path / "no")


def test_half_precision_folders_are_half_as_large(tmp_path: Path, network: RaeNetwork, images: Tensor) -> None:
    for name, dtype in (("full", torch.float32), ("half", torch.float16)):
        save_folder(network, tmp_path / name, dtype)
    size = {name: (tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")}
    assert size["half"] < 0.55 * size["full"]
    full, half = Rae(str(tmp_path / "full")), Rae(str(tmp_path / "half"))
    torch.testing.assert_close(half.encode(images), full.encode(images), atol=0.02, rtol=0)
    assert all(p.dtype == torch.float32 for p in load_folder(tmp_path / "half").parameters())


@pytest.mark.slow
def test_two_ranks_stay_alike_and_measure_the_pictures_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [
        "fit",
        "--config=configs/rae/tiny.yaml",
        "--data=configs/data/image_text.yaml",
        "--data.tokenizer=data/tiny/tokenizer.json",
        "--data.loader={row_length: 256, rows: 1, workers: 0, val_documents: 3}",  # one rank has none of them
        "--model.pretrained=false",
        "--model.rae.encoder_args={embed_dim: 32, depth: 1, num_heads: 2}",
        "--model.rae.decoder_hidden_size=32",
        "--model.rae.decoder_num_hidden_layers=1",
        "--model.rae.decoder_num_attention_heads=2",
        "--model.statistics_pictures=60",
        "--model.stored_as=float32",
        "--model.loss.perceptual=0",
        "--model.adversarial.weight=0.75",
        "--model.adversarial.network=tests.vision.training.toys.ToyFeatures",
        "--model.adversarial.discriminator_start=0",
        "--model.adversarial.adversarial_start=1",
        "--model.judge=tests.vision.training.toys.ToyFeatures",
        f"--trainer.logger.save_dir={tmp_path}",
        "--trainer.max_steps=3",
        "--trainer.val_check_interval=3",
        "--trainer.devices=2",
        "--trainer.strategy=ddp_find_unused_parameters_true",
        "--trainer.enable_progress_bar=false",
        "--trainer.callbacks=tests/vision/training/callbacks.yaml",
        f"--trainer.callbacks.folder={tmp_path}",
    ]
    run_all(tmp_path, [arguments], ranks=2)
    assert (tmp_path / "weights0.json").read_text() == (tmp_path / "weights1.json").read_text()
    (sheet,) = (tmp_path / "rae/version_0/samples").rglob("*.png")
    assert sheet.parent.name == "reconstructed"
    monkeypatch.chdir(ROOT)
    pictures = torch.cat([pictures_of_rank(rank, ranks=2, count=30) for rank in (0, 1)])
    network = load_folder(tmp_path / "rae/version_0/rae")
    with torch.no_grad():
        tokens = network.encoder(pictures / 255).double()
    torch.testing.assert_close(network.statistics.mean.double(), tokens.mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        network.statistics.std.double() ** 2, tokens.var(0, correction=0) + 1e-5, rtol=1e-4, atol=1e-6
    )


def pictures_of_rank(rank: int, ranks: int, count: int) -> Tensor:
    """The first pictures that a rank trains on, by the plan of rows."""
    data = ImageTextDataModule(
        train="data/tiny/image_text/train",
        val=None,
        tokenizer="data/tiny/tokenizer.json",
        loader=LoaderConfig(row_length=256, rows=1, workers=0),
        image_size=64,
        tokens_per_frame=16,
    )
    data.setup("fit")
    rows = iter(TrainingRows(data.reader("train"), data.mixture.weights, 0, Share(rank, ranks, 1), {}))
    pictures = [next(rows).frames for _ in range(count)]
    return torch.cat(pictures)[:count]

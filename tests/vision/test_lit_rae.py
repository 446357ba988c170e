from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lit_mm.schedule import WarmupCosine
from lit_mm.sequence import Document, Frame, PackedBatch, PackedRow, Text, pack_rows
from lit_mm.vision import Rae
from lit_mm.vision.augment import augment
from lit_mm.vision.folder import load_folder, save_folder
from lit_mm.vision.lit_rae import LitRae, export, picture_quality
from lit_mm.vision.rae import RaeNetwork
from tests.vision.conftest import SMALL


def shapes(count: int, size: int, seed: int = 0) -> Tensor:
    """(count, 3, size, size) uint8: on a plain ground, a rectangle and a disc of random colours."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    pictures = []
    for _ in range(count):
        ground, one, two = torch.randint(0, 256, (3, 3, 1, 1), generator=generator)
        top, left, y, x = torch.randint(0, size // 2, (4,), generator=generator)
        box = (rows >= top) & (rows < top + size // 2) & (columns >= left) & (columns < left + size // 3)
        disc = (rows - y - size // 4) ** 2 + (columns - x - size // 4) ** 2 < (size // 5) ** 2
        pictures.append(torch.where(disc, two, torch.where(box, one, ground)))
    return torch.stack(pictures).to(torch.uint8)


def batch_of(images: Tensor, source_of: list[int], sources: tuple[str, ...] = ("drawings", "game")) -> PackedBatch:
    documents = tuple(
        Document((Text(torch.tensor([1, 2])), Frame(image), Text(torch.tensor([3]))), sources[source])
        for image, source in zip(images, source_of, strict=True)
    )
    row = PackedRow(documents, number=0, seed=0)
    size = images.shape[-1]
    return pack_rows([row], length=512, tokens_per_frame=16, image_size=size, pad_id=0, sources=sources)


def loader(batch: PackedBatch, count: int = 1) -> DataLoader:
    return DataLoader([batch] * count, batch_size=None)


def trainer(folder: Path, steps: int, **arguments: Any) -> pl.Trainer:
    defaults: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "limit_val_batches": 0}
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=steps,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{**defaults, **arguments},
    )


def model(**arguments: Any) -> LitRae:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "optimizer": lambda p: torch.optim.AdamW(p, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0),
        "schedule": WarmupCosine(warmup_steps=10, final_share=0.05),
        "noise_tau": 0.1,
        "max_shift": 0,
    }
    return LitRae(SMALL, **{**defaults, **arguments})


def mean_psnr(rae: Rae, images: Tensor) -> float:
    drawn = rae.decode(rae.encode(images))
    return float((-10 * ((drawn.double() - images) / 255).square().mean(dim=(1, 2, 3)).log10()).mean())


def test_learns_a_handful_of_pictures_and_leaves_a_folder(tmp_path: Path) -> None:
    images = shapes(8, 32)
    lit = model()
    assert (lit.image_size, lit.tokens_per_frame) == (32, 16)
    before = mean_psnr(Rae(str(save_folder(lit.rae, tmp_path / "untrained"))), images)
    trainer(tmp_path, 180).fit(lit, loader(batch_of(images, [0] * 8), 180))
    after = mean_psnr(Rae(str(tmp_path / "rae")), images)
    assert before < 12
    assert after > 21


def test_only_the_decoder_learns_when_the_encoder_is_frozen(folder: Path, tmp_path: Path) -> None:
    lit = model(train_encoder=False, start_from=str(folder))
    trainer(tmp_path, 3).fit(lit, loader(batch_of(shapes(2, 32), [0, 1]), 3))
    start, end = Rae(str(folder)), Rae(str(tmp_path / "rae"))
    assert start.fingerprint() == end.fingerprint()
    assert start.decoder is not None
    assert end.decoder is not None
    moved = [not torch.equal(a, b) for a, b in zip(start.decoder.parameters(), end.decoder.parameters(), strict=True)]
    assert all(moved)


def test_start_from_needs_the_same_sizes(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.start_from '.*small' holds another autoencoder"):
        LitRae(replace(SMALL, decoder_hidden_size=96), start_from=str(folder))


def test_validation_logs_each_source_and_a_grid(tmp_path: Path, network: RaeNetwork) -> None:
    images = shapes(5, 32)
    lit = model(start_from=str(save_folder(network, tmp_path / "start")))
    logger = TensorBoardLogger(tmp_path, name=None, version="run")
    runner = trainer(tmp_path, 1, logger=logger, limit_val_batches=1.0)
    logged = runner.validate(lit, loader(batch_of(images, [0, 0, 0, 1, 1])), verbose=False)[0]
    rae = Rae(str(tmp_path / "start"))
    for source, part in (("drawings", images[:3]), ("game", images[3:])):
        # One is measured before, the other after rounding to 8 bits.
        assert logged[f"val/{source}/psnr"] == pytest.approx(mean_psnr(rae, part), abs=0.05)
        assert 0 < logged[f"val/{source}/ssim"] <= 1
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert sorted(events.Tags()["images"]) == ["reconstruction/drawings", "reconstruction/game"]


def test_batches_without_pictures_are_passed_over(tmp_path: Path) -> None:
    words = Document((Text(torch.tensor([1, 2, 3])),), "drawings")
    row = PackedRow((words,), number=0, seed=0)
    empty = pack_rows([row], length=8, tokens_per_frame=16, image_size=32, pad_id=0, sources=("drawings", "game"))
    lit = model()
    assert lit.training_step(empty, 0) is None
    lit.validation_step(empty, 0)


def test_a_checkpoint_alone_is_exported(tmp_path: Path) -> None:
    images = shapes(2, 32)
    runner = trainer(tmp_path, 2)
    runner.fit(model(), loader(batch_of(images, [0, 0]), 2))
    runner.save_checkpoint(tmp_path / "two.ckpt")
    exported = Rae(str(export(tmp_path / "two.ckpt", tmp_path / "exported")))
    finished = Rae(str(tmp_path / "rae"))
    assert exported.fingerprint() == finished.fingerprint()
    assert torch.equal(exported.decode(exported.encode(images)), finished.decode(finished.encode(images)))
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt' is not a checkpoint of an autoencoder"):
        export(tmp_path / "other.ckpt", tmp_path / "no")


def test_half_precision_folders_are_half_as_large(tmp_path: Path, network: RaeNetwork, images: Tensor) -> None:
    for name, dtype in (("full", torch.float32), ("half", torch.float16)):
        save_folder(network, tmp_path / name, dtype)
    size = {name: (tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")}
    assert size["half"] < 0.55 * size["full"]
    full, half = Rae(str(tmp_path / "full")), Rae(str(tmp_path / "half"))
    torch.testing.assert_close(half.encode(images), full.encode(images), atol=0.02, rtol=0)
    assert all(p.dtype == torch.float32 for p in load_folder(tmp_path / "half").parameters())


def test_augmented_pictures_are_mirrored_and_shifted_originals() -> None:
    torch.manual_seed(0)
    images = shapes(40, 16)
    assert torch.equal(augment(images, 0), images)
    seen = set()
    for picture, moved in zip(images, augment(images, 2), strict=True):
        padded = F.pad(picture.float(), (2, 2, 2, 2), mode="replicate").to(torch.uint8)
        windows = {
            (y, x, mirrored): (window.flip(-1) if mirrored else window)
            for y in range(5)
            for x in range(5)
            for mirrored in (False, True)
            for window in [padded[:, y : y + 16, x : x + 16]]
        }
        matches = [key for key, window in windows.items() if torch.equal(window, moved)]
        assert matches
        seen.add(matches[0])
    assert len(seen) > 15
    assert {mirrored for _, _, mirrored in seen} == {False, True}


def test_quality_is_that_of_its_definition() -> None:
    images = shapes(3, 32) / 255
    noisy = (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    psnr, ssim = picture_quality(noisy, images)
    expected = [-10 * torch.log10(((a - b) ** 2).mean()) for a, b in zip(noisy, images, strict=True)]
    torch.testing.assert_close(psnr, torch.stack(expected))
    same_psnr, same_ssim = picture_quality(images, images)
    assert torch.all(same_psnr.isfinite() & (same_psnr > psnr))
    torch.testing.assert_close(same_ssim, torch.ones(3), atol=1e-3, rtol=0)
    assert torch.all(ssim < 0.95)

"""Small parts that the tests of this folder share."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, Frame, PackedBatch, PackedRow, Text
from lit_mm.training.schedule import WarmupCosine
from lit_mm.vision.metrics.features import FeatureNetwork
from lit_mm.vision.training.adversary import AdversarialTerm
from lit_mm.vision.training.lit_rae import LitRae
from lit_mm.vision.training.losses import ReconstructionTerms
from tests.vision.conftest import SMALL

SOURCES = ("drawings", "game")


class ToyFeatures(FeatureNetwork):
    """Two random convolutions, always the same."""

    def __init__(self, name: str = "toy") -> None:
        super().__init__()
        self.name, self.channels = name, (4, 6)
        self.fine, self.coarse = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 6, 3, stride=2)
        generator = torch.Generator().manual_seed(3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(images)
        return [fine, self.coarse(fine.tanh())]


def never() -> FeatureNetwork:
    raise AssertionError("a network was made that no term needs")


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


def batch_of(images: Tensor, source_of: list[int], seed: int = 0) -> PackedBatch:
    documents = tuple(
        Document((Text(torch.tensor([1, 2])), Frame(image), Text(torch.tensor([3]))), SOURCES[source])
        for image, source in zip(images, source_of, strict=True)
    )
    row = PackedRow(documents, number=0, seed=seed)
    size = images.shape[-1]
    return pack_rows([row], length=512, tokens_per_frame=16, image_size=size, pad_id=0, sources=SOURCES)


class Pictures(pl.LightningDataModule):
    """Endless batches, each of its own pictures and seed; a resumed run goes on where it stopped."""

    def __init__(self, size: int = 32, validation: PackedBatch | None = None) -> None:
        super().__init__()
        self.size, self.validation = size, validation

    def batch(self, step: int) -> PackedBatch:
        return batch_of(shapes(4, self.size, seed=step), [0, 1, 0, 1], seed=step)

    def train_dataloader(self) -> DataLoader:
        first = self.trainer.global_step if self.trainer is not None else 0

        class Stream(IterableDataset):
            def __iter__(stream) -> Iterator[PackedBatch]:
                return (self.batch(step) for step in itertools.count(first))

        return DataLoader(Stream(), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader([self.validation] if self.validation is not None else [], batch_size=None)


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


def rae(**arguments: Any) -> LitRae:
    """A small joint autoencoder: of an encoder with random weights little can be drawn."""
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "train_encoder": True,
        "optimizer": lambda p: torch.optim.AdamW(p, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0),
        "schedule": WarmupCosine(warmup_steps=10, final_share=0.05),
        "loss": ReconstructionTerms(l1=1.0, mse=4.0),
        "ema_decay": 0.8,
        "gradient_clip": 1.0,
        "noise_tau": 0.1,
    }
    return LitRae(SMALL, **{**defaults, **arguments})


def adversarial(network: Callable[[], FeatureNetwork] = ToyFeatures, **arguments: Any) -> AdversarialTerm:
    defaults: dict[str, Any] = {"weight": 0.75, "discriminator_start": 1, "adversarial_start": 2}
    return AdversarialTerm(network=network, **{**defaults, **arguments})


class WeightRecorder(pl.Callback):
    """Writes, per rank, a sum over every tensor that must be the same on all of them."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        sums = {name: float(tensor.double().sum()).hex() for name, tensor in pl_module.state_dict().items()}
        (self.folder / f"weights{trainer.global_rank}.json").write_text(json.dumps(sums))

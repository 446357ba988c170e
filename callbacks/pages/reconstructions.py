"""Pictures beside what an autoencoder makes of them, in the logger and in the run folder."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchvision.io import write_png

from callbacks.loggers import log_picture
from callbacks.pages.contact_sheet import SheetRow, contact_sheet
from lit_mm.sequence import PackedBatch
from lit_mm.training.run_folder import run_folder


class Reconstructions(Callback):
    """After a validation, shows the first pictures of every source: original, reconstruction and their difference.

    They go to `samples/<source>/reconstructed/step_NNNNNNN.png` in the run folder, and to loggers that
    show pictures as `samples/<source>/reconstructed`. A reconstruction is headed by its PSNR.

    Args:
        pictures: of each source.
        amplify: factor by which absolute differences are shown.
    """

    def __init__(self, pictures: int = 8, amplify: float = 4.0) -> None:
        self.pictures, self.amplify = pictures, amplify
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {}  # of each source: original and reconstruction, uint8

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: PackedBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first pictures of each source."""
        if not outputs or trainer.sanity_checking or not trainer.is_global_zero:
            return
        for index in batch.frame_source_ids.unique().tolist():
            seen = self._seen.setdefault(batch.sources[index], [])
            here = (batch.frame_source_ids == index).nonzero().squeeze(1)[: self.pictures - len(seen)]
            drawn = (outputs["drawn"][here] * 255).round().to(torch.uint8).cpu()
            seen.extend(zip(batch.frames[here].cpu(), drawn, strict=True))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write a sheet per source."""
        run = run_folder(trainer)
        for source, seen in self._seen.items():
            originals, drawn = (torch.stack(pictures) for pictures in zip(*seen, strict=True))
            sheet = contact_sheet(self._rows(originals, drawn))
            name = f"samples/{source}/reconstructed"
            log_picture(trainer, name, sheet)
            if run:
                folder = run / name
                folder.mkdir(parents=True, exist_ok=True)
                write_png(sheet, str(folder / f"step_{trainer.global_step:07d}.png"))
        self._seen = {}

    def _rows(self, originals: Tensor, drawn: Tensor) -> list[SheetRow]:
        error = drawn.float() - originals.float()
        difference = (error.abs() * self.amplify).round().clamp(max=255).to(torch.uint8)
        psnr = -10 * (error / 255).square().mean((1, 2, 3)).log10()
        blank = [""] * len(originals)
        return [
            SheetRow(originals, blank, "original"),
            SheetRow(drawn, [f"{value:.1f} dB" for value in psnr.tolist()], "reconstruction"),
            SheetRow(difference, blank, f"absolute difference times {self.amplify:g}"),
        ]

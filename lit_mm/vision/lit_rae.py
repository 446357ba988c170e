"""Training an autoencoder of pictures: `lit-mm fit --config configs/rae/tiny.yaml`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn import functional as F

from lit_mm.metrics import SourceMeans
from lit_mm.schedule import WarmupCosine
from lit_mm.sequence import PackedBatch
from lit_mm.vision.augment import augment
from lit_mm.vision.folder import load_folder, save_folder
from lit_mm.vision.rae import RaeConfig, RaeNetwork

GRID_PICTURES = 8  # pictures of a source in the grid of reconstructions
MAX_PSNR = 58.9  # dB: what rounding to 8 bits loses; a picture drawn without error would count as infinite


class LitRae(pl.LightningModule):
    """Trains an encoder and a decoder together, or a decoder on a frozen encoder, to draw what they are shown.

    The loss is the mean absolute plus `mse_weight` times the mean squared error of pixels in [-1, 1]. The decoder is
    shown noised latents, z + sigma * n with sigma = noise_tau * U(0, 1) drawn per picture (RAE, arXiv
    2510.11690), so that it also draws latents that a generator did not quite hit; validation adds no noise.

    Text in the batches is ignored. When fitting ends the folder `rae` is written under the run folder, ready for
    `lit_mm.vision.Rae(folder=…)`.

    Args:
        rae: sizes of encoder and decoder.
        pretrained: weights the encoder starts from: true loads the published ones, a path reads a file, false starts
            from random weights.
        train_encoder: train the encoder too; if false it stays as it is and latents do not change.
        start_from: folder of an autoencoder of the same sizes whose weights to start from.
        optimizer: AdamW of RAE by default, without weight decay.
        schedule: of the learning rate.
        noise_tau: upper bound of the latents' noise; latents have unit variance.
        mse_weight: weight of the squared error beside the absolute one.
        max_shift: pictures are shifted by up to so many pixels and mirrored at random; 0 leaves them as they are.
        stored_as: number format of the folder written when fitting ends.

    Attributes:
        image_size: side of the pictures, in pixels.
        tokens_per_frame: tokens of a picture.
    """

    def __init__(
        self,
        rae: RaeConfig,
        pretrained: bool | str = False,
        train_encoder: bool = True,
        start_from: str | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=2e-4, betas=(0.9, 0.95), weight_decay=0.0),
        schedule: WarmupCosine | None = None,
        noise_tau: float = 0.6,
        mse_weight: float = 2.0,
        max_shift: int = 4,
        stored_as: Literal["float32", "float16"] = "float32",
    ) -> None:
        super().__init__()
        self.rae = RaeNetwork(rae, pretrained)
        if start_from is not None:
            self._start_from(start_from)
        self.image_size = rae.image_size
        self.tokens_per_frame = self.rae.encoder.num_tokens
        self.train_encoder = train_encoder
        self.rae.encoder.requires_grad_(train_encoder)
        self.make_optimizer = optimizer
        self.schedule = schedule or WarmupCosine()
        self.noise_tau, self.mse_weight, self.max_shift = noise_tau, mse_weight, max_shift
        self.stored_as = stored_as
        self.val_means = SourceMeans()
        self.validation_results: dict[str, float] = {}

    def _start_from(self, folder: str) -> None:
        network = load_folder(folder)
        if network.config != self.rae.config:
            raise ValueError(f"model.start_from '{folder}' holds another autoencoder than model.rae describes")
        self.rae.load_state_dict(network.state_dict())

    def training_step(self, batch: PackedBatch, batch_idx: int) -> Tensor | None:
        """Mean loss over the batch's pictures; a batch without any is skipped."""
        if len(batch.frames) == 0:
            return None
        images = augment(batch.frames, self.max_shift)
        with torch.set_grad_enabled(self.train_encoder):
            latents = self.rae.encode(images)
        sigma = self.noise_tau * torch.rand(len(latents), 1, 1, device=latents.device)
        error = 2 * (self.rae.decode(latents + sigma * torch.randn_like(latents)) - images / 255)
        loss = error.abs().mean() + self.mse_weight * error.square().mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: PackedBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Mean PSNR (dB) and SSIM of the pictures of each source, as `val/<source>/psnr` and `val/<source>/ssim`."""
        if len(batch.frames) == 0:
            return
        images = batch.frames / 255
        drawn = self.rae.decode(self.rae.encode(batch.frames)).float().clamp(0, 1)
        psnr, ssim = picture_quality(drawn, images)
        self.val_means.add("psnr", psnr, batch.frame_source_ids, batch.sources)
        self.val_means.add("ssim", ssim, batch.frame_source_ids, batch.sources)
        if batch_idx == 0:
            for index in batch.frame_source_ids.unique().tolist():
                here = batch.frame_source_ids == index
                self._log_grid(batch.sources[index], images[here][:GRID_PICTURES], drawn[here][:GRID_PICTURES])

    def on_validation_epoch_end(self) -> None:
        """Log the means over all ranks."""
        means = self.val_means.compute()
        self.validation_results = {f"val/{source}/{name}": value for (source, name), value in means.items()}
        self.log_dict(self.validation_results, rank_zero_only=True)

    def _log_grid(self, source: str, images: Tensor, drawn: Tensor) -> None:
        """Originals above their reconstructions, to every TensorBoard logger."""
        from torchvision.utils import make_grid

        grid = make_grid(torch.cat([images, drawn]).cpu(), nrow=len(images), padding=2)
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(f"reconstruction/{source}", grid, self.global_step)

    def configure_optimizers(self) -> Any:
        """The optimizer over what is trained, with warm-up and cosine by step."""
        optimizer = self.make_optimizer([p for p in self.rae.parameters() if p.requires_grad])
        scheduler = self.schedule(optimizer, self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint alone can be exported."""
        checkpoint["rae_config"] = asdict(self.rae.config)

    def on_fit_end(self) -> None:
        """Write the folder `rae` under the run folder."""
        run = self.trainer.log_dir or self.trainer.default_root_dir
        if self.trainer.is_global_zero:
            save_folder(self.rae, Path(run) / "rae", getattr(torch, self.stored_as))


def export(checkpoint: str | Path, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write the autoencoder of a `LitRae` checkpoint as a folder that `lit_mm.vision.Rae` loads.

    Raises:
        ValueError: the checkpoint is of another kind.
    """
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if "rae_config" not in content:
        raise ValueError(f"'{checkpoint}' is not a checkpoint of an autoencoder (it has no rae_config)")
    network = RaeNetwork(RaeConfig(**content["rae_config"]))
    network.load_state_dict({k.removeprefix("rae."): v for k, v in content["state_dict"].items()})
    return save_folder(network, folder, dtype)


def picture_quality(drawn: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """PSNR (F,) in dB and SSIM (F,) of pictures (F, 3, height, width) in [0, 1]."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    mse = F.mse_loss(drawn, images, reduction="none").mean(dim=(1, 2, 3))
    psnr = (-10 * mse.log10()).clamp(max=MAX_PSNR)
    ssim = structural_similarity_index_measure(drawn, images, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)
    return psnr, ssim

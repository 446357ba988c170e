"""What training any autoencoder of pictures has in common: losses, discriminator, averaged weights, measures."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lit_mm.frozen import freeze
from lit_mm.mistake import Mistake
from lit_mm.sequence import PackedBatch
from lit_mm.training.metrics import SourceMeans
from lit_mm.training.optimization import parameter_groups
from lit_mm.training.run_folder import run_folder
from lit_mm.training.schedule import WarmupCosine
from lit_mm.vision.metrics.features import FeatureNetwork
from lit_mm.vision.metrics.frechet import FrechetDistances
from lit_mm.vision.metrics.quality import picture_quality
from lit_mm.vision.training.adversary import AdversarialTerm, Adversary
from lit_mm.vision.training.augment import augment
from lit_mm.vision.training.losses import ReconstructionLoss, ReconstructionTerms
from lit_mm.vision.training.statistics import latent_moments
from lit_mm.vision.training.turns import take_turns, without_pictures

PRECISIONS = ("32-true", "bf16-mixed")


class LitAutoencoder(pl.LightningModule, ABC):
    """Draws the pictures of its batches and learns from how they differ; text is ignored.

    A subclass builds its network, calls `start_average`, and says how pictures are drawn. All noise of a step comes
    from the seeds of its batch, so a resumed run sees the same noise as an unbroken one.

    Without an adversarial term this is ordinary automatic optimization; with one, two optimizers take turns by hand.
    Only the decoder's steps count as the trainer's.

    Args:
        loss: weights of the reconstruction terms; L1 alone by default.
        adversarial: settings of the adversarial term; none by default.
        judge: network in whose features validation measures distances; none by default.
        optimizer: of the autoencoder.
        schedule: of all learning rates.
        ema_decay: share of the averaged weights that a step keeps. Validation and the saved folder use the averaged
            weights; 0 uses the trained ones.
        gradient_clip: largest norm of the autoencoder's gradient; null does not clip. (Lightning's own setting does
            not work with two optimizers.)
        max_shift: pictures are shifted by up to so many pixels and mirrored at random; 0 leaves them as they are.

    Attributes:
        image_size: side of the pictures, in pixels.
        tokens_per_frame: positions that a picture takes in a row of data.
    """

    image_size: int
    tokens_per_frame: int
    folder_name: str  # in the run folder

    def __init__(
        self,
        loss: ReconstructionTerms | None,
        adversarial: AdversarialTerm | None,
        judge: Callable[[], FeatureNetwork] | None,
        optimizer: OptimizerCallable,
        schedule: WarmupCosine | None,
        ema_decay: float,
        gradient_clip: float | None,
        max_shift: int,
    ) -> None:
        super().__init__()
        self.reconstruction_loss = ReconstructionLoss(loss or ReconstructionTerms())
        self.adversary = Adversary(adversarial) if adversarial is not None and adversarial.weight else None
        self.automatic_optimization = self.adversary is None
        self.judge = freeze(judge()) if judge is not None else None
        self.frechet = FrechetDistances(self.judge) if self.judge is not None else None
        self.make_optimizer = optimizer
        self.schedule = schedule or WarmupCosine()
        if not 0 <= ema_decay < 1:
            raise Mistake(f"model.ema_decay is {ema_decay}, but must be at least 0 (no averaging) and below 1")
        self.ema_decay, self.gradient_clip, self.max_shift = ema_decay, gradient_clip, max_shift
        self.average: AveragedModel | None = None
        self.val_means = SourceMeans()
        self.validation_results: dict[str, float] = {}

    def start_average(self) -> None:
        """To be called by a subclass once its weights are those it starts from."""
        if self.ema_decay:
            self.average = freeze(AveragedModel(self.trained, multi_avg_fn=get_ema_multi_avg_fn(self.ema_decay)))
            self.average.update_parameters(self.trained)  # copies: the average starts from the untrained weights

    # ---- what a subclass says

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """The part of its network that is trained."""

    @abstractmethod
    def draw_for_training(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Pictures (F, 3, size, size) uint8 as the trained weights draw them, about [0, 1], and own weighted losses."""

    @abstractmethod
    def draw(self, images: Tensor) -> Tensor:
        """Pictures (F, 3, size, size) uint8 as the shown (averaged) weights draw them, about [0, 1], without noise."""

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """Weight of the decoder's last layer."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the shown weights so that a visual tokenizer loads them."""

    @property
    def shown(self) -> nn.Module:
        """The averaged copy of what is trained, or what is trained itself where nothing is averaged."""
        return self.trained if self.average is None else self.average.module

    # ---- training

    def training_step(self, batch: PackedBatch, batch_idx: int) -> Tensor | None:
        """Mean loss over the batch's pictures.

        A batch without any is skipped. Of several ranks one then takes part with a loss of zero: the others wait for
        its gradients.
        """
        if len(batch.frames) == 0:
            return None if self.trainer.world_size == 1 else without_pictures(self)
        generator = torch.Generator(self.device).manual_seed(batch.seeds[0])
        pictures = augment(batch.frames, self.max_shift, generator)
        images = pictures / 255
        drawn, own_losses = self.draw_for_training(pictures, generator)
        losses = self.reconstruction_loss(drawn, images) | own_losses
        loss = torch.stack(list(losses.values())).sum()
        self.log_dict({f"train/{name}_loss": value.detach() for name, value in losses.items()})
        self.log("train/loss", loss.detach(), prog_bar=True)
        if self.adversary is not None:
            take_turns(self, self.adversary, loss, drawn, images, generator)
        return loss

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """Called by the trainer where it steps the only optimizer."""
        self.clip()

    def clip(self) -> None:
        """Scale the gradient of what is trained down to `gradient_clip`."""
        if self.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.trained_parameters(), self.gradient_clip)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Called by the trainer where it steps the only optimizer: the average follows at once."""
        super().optimizer_step(*args, **kwargs)
        self.update_average()

    def update_average(self) -> None:
        """Let the averaged weights follow those of the step that was just taken."""
        if self.average is not None:
            self.average.update_parameters(self.trained)

    def trained_parameters(self) -> list[nn.Parameter]:
        """Those of `trained` that learn."""
        return [p for p in self.trained.parameters() if p.requires_grad]

    def configure_optimizers(self) -> Any:
        """The optimizer over what is trained, and the discriminator's; warm-up and cosine by step."""
        steps = self.trainer.max_steps
        optimizers = [self.make_optimizer(parameter_groups(self.trained))]
        schedulers = [self.schedule(optimizers[0], steps)]
        if self.adversary is not None:
            term, heads = self.adversary.term, self.adversary.discriminator.heads
            optimizers.append(
                torch.optim.AdamW(heads.parameters(), lr=term.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
            )
            schedulers.append(self.schedule(optimizers[1], max(1, steps - term.discriminator_start)))
        return optimizers, [{"scheduler": scheduler, "interval": "step"} for scheduler in schedulers]

    # ---- validation

    def validation_step(self, batch: PackedBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor] | None:
        """Measure the pictures of each source as `val/<source>/psnr` (dB), `ssim` and in the judge's features.

        Returns:
            `drawn` (F, 3, size, size) in [0, 1], rounded to 8 bits, for callbacks; None for a batch without pictures.
        """
        judges = self._judges()
        if len(batch.frames) == 0:  # of a rank that has run out; it still takes part in adding up
            names = ["psnr", "ssim", *(f"{network.name}_distance" for network in judges)]
            self._count(dict.fromkeys(names, torch.zeros(0, device=self.device)), batch)
            return None
        images = batch.frames / 255
        drawn = (self.draw(batch.frames).float() * 255).round().clamp(0, 255) / 255
        measures = dict(zip(("psnr", "ssim"), picture_quality(drawn, images), strict=True))
        for network in judges:
            measures[f"{network.name}_distance"] = network.distance(network(drawn), network(images))
        self._count(measures, batch)
        if self.frechet is not None:
            self.frechet.add(drawn, images, batch.frame_source_ids, batch.sources)
        return {"drawn": drawn}

    def _count(self, measures: dict[str, Tensor], batch: PackedBatch) -> None:
        for name, values in measures.items():
            self.val_means.add(name, values, batch.frame_source_ids, batch.sources)

    def _judges(self) -> list[FeatureNetwork]:
        """The judge and, unless it has the same name, the network of the loss."""
        networks = {n.name: n for n in (self.reconstruction_loss.network, self.judge) if n is not None}
        return list(networks.values())

    def on_validation_epoch_end(self) -> None:
        """Log the means and distances over all ranks."""
        means = self.val_means.compute()
        results = {f"val/{source}/{name}": value for (source, name), value in means.items()}
        if self.frechet is not None and self.judge is not None:
            sources = sorted({source for source, _ in means})
            for source, distance in self.frechet.compute(sources, self.device).items():
                results[f"val/{source}/frechet_{self.judge.name}"] = distance
        self.validation_results = results
        self.log_dict(results, rank_zero_only=True)

    # ---- the run

    def setup(self, stage: str) -> None:
        """Refuse a precision in which the weights themselves, and with them averages and statistics, would be rounded.

        Raises:
            Mistake: the precision is none of those that work.
        """
        if self.trainer.precision not in PRECISIONS:
            raise Mistake(
                f"trainer.precision is {self.trainer.precision}, but averaged weights and statistics of latents need "
                f"float32 weights: use {' or '.join(PRECISIONS)}"
            )
        # Lightning thinks that a checkpoint of a finished step needs an explanation.
        warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optimization")

    def moments_of(self, encode: Callable[[Tensor], Tensor], pictures: int) -> tuple[Tensor, Tensor]:
        """Mean and variance, float64, of the latents of the first training pictures: see `latent_moments`.

        Args:
            encode: (F, 3, size, size) uint8 to latents (F, ...).
            pictures: how many to look at, over all ranks.
        """
        rank_zero_info(f"measuring the latents of {pictures} training pictures")
        loader = self.trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
        return latent_moments(encode, loader, -(-pictures // self.trainer.world_size), self.device)

    def on_fit_end(self) -> None:
        """Write the folder that the visual tokenizer loads, and say where it is."""
        folder = (run_folder(self.trainer) or Path(self.trainer.default_root_dir)) / self.folder_name
        self.finish()
        if self.trainer.is_global_zero:
            self.save(folder)
            rank_zero_info(f"autoencoder: {folder}")

    def finish(self) -> None:
        """What a subclass measures on all ranks before it is saved."""

    # ---- checkpoints: frozen feature networks are not stored

    def _frozen(self) -> tuple[str, ...]:
        return tuple(f"{name}." for name, module in self.named_modules() if isinstance(module, FeatureNetwork))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out the weights of frozen feature networks."""
        state, frozen = checkpoint["state_dict"], self._frozen()
        checkpoint["state_dict"] = {k: v for k, v in state.items() if not (frozen and k.startswith(frozen))}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the weights of the frozen feature networks where the loader looks for them."""
        if frozen := self._frozen():
            checkpoint["state_dict"].update({k: v for k, v in self.state_dict().items() if k.startswith(frozen)})

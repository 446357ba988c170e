"""Training an RAE's decoder: `lit-mm fit --config configs/rae/tiny.yaml`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lit_mm.frozen import freeze
from lit_mm.mistake import Mistake
from lit_mm.training.schedule import WarmupCosine
from lit_mm.vision.formats.folder import load_folder, save_folder
from lit_mm.vision.metrics.features import FeatureNetwork
from lit_mm.vision.rae_network import RaeConfig, RaeNetwork, draw
from lit_mm.vision.training.adversary import AdversarialTerm
from lit_mm.vision.training.lit_autoencoder import LitAutoencoder
from lit_mm.vision.training.losses import ReconstructionTerms


class LitRae(LitAutoencoder):
    """Trains a decoder to draw what a frozen encoder saw (RAE, arXiv 2510.11690), or both together.

    The decoder is shown noised latents, z + sigma * n with sigma = noise_tau * U(0, 1) drawn per picture, so that it
    also draws latents that a generator did not quite hit; validation adds no noise. Validation reports PSNR (dB), SSIM
    and, with a judge, distances in its features, per source.

    When fitting ends the folder `rae` is written under the run folder, ready for `lit_mm.vision.Rae(folder=…)`.

    Args:
        rae: sizes of encoder and decoder.
        pretrained: weights the encoder starts from: true loads the published ones, a path reads a file, false starts
            from random weights.
        train_encoder: train the encoder too; by default it stays as it is and latents do not change.
        start_from: folder of an autoencoder of the same sizes whose weights to start from.
        loss: weights of the reconstruction terms; L1 alone by default.
        adversarial: settings of the adversarial term; none by default.
        judge: network in whose features validation measures distances; none by default.
        optimizer: AdamW of RAE by default, without weight decay.
        schedule: of all learning rates.
        ema_decay: share of the averaged weights that a step keeps; the averaged weights are validated and saved. 0
            uses the trained ones.
        gradient_clip: largest norm of the gradient; null does not clip.
        noise_tau: upper bound of the latents' noise; latents have unit variance.
        max_shift: pictures are shifted by up to so many pixels and mirrored at random; 0 leaves them as they are.
        statistics_pictures: training pictures over which mean and variance of the latents, per channel and position,
            are measured before training; they go into the folder. 0 measures none.
        stored_as: number format of the folder written when fitting ends.
        compact: leave out of that folder what only diffusers needs, see `lit_mm.vision.formats.folder`.

    Raises:
        Mistake: statistics of an encoder that is trained were asked for, or `start_from` holds another autoencoder.
    """

    folder_name = "rae"

    def __init__(
        self,
        rae: RaeConfig,
        pretrained: bool | str = False,
        train_encoder: bool = False,
        start_from: str | None = None,
        loss: ReconstructionTerms | None = None,
        adversarial: AdversarialTerm | None = None,
        judge: Callable[[], FeatureNetwork] | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=2e-4, betas=(0.9, 0.95), weight_decay=0.0),
        schedule: WarmupCosine | None = None,
        ema_decay: float = 0.9978,
        gradient_clip: float | None = None,
        noise_tau: float = 0.8,
        max_shift: int = 0,
        statistics_pictures: int = 0,
        stored_as: Literal["float32", "float16"] = "float32",
        compact: bool = False,
    ) -> None:
        super().__init__(loss, adversarial, judge, optimizer, schedule, ema_decay, gradient_clip, max_shift)
        if statistics_pictures and train_encoder:
            raise Mistake(
                "model.statistics_pictures needs a frozen encoder, as latents change while it is trained: set it to 0, "
                "or model.train_encoder to false"
            )
        self.rae = RaeNetwork(rae, pretrained)
        if start_from is not None:
            self._start_from(start_from)
        self.image_size = rae.image_size
        self.tokens_per_frame = self.rae.encoder.num_tokens
        self.train_encoder = train_encoder
        if not train_encoder:
            freeze(self.rae.encoder)
        self.noise_tau, self.stored_as, self.compact = noise_tau, stored_as, compact
        self.statistics_pictures = statistics_pictures
        self._measured = False
        self.start_average()

    def _start_from(self, folder: str) -> None:
        network = load_folder(folder)
        its, ours = asdict(network.config), asdict(self.rae.config)
        if differences := [f"{key} {its[key]}, not {ours[key]}" for key in ours if its[key] != ours[key]]:
            raise Mistake(
                f"model.start_from '{folder}' holds another autoencoder than model.rae describes: it has "
                f"{'; '.join(differences)}"
            )
        self.rae.load_state_dict(network.state_dict())

    @property
    def trained(self) -> nn.Module:
        """Encoder and decoder, or the decoder alone."""
        return self.rae if self.train_encoder else self.rae.decoder

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of what turns the decoder's tokens into pixels."""
        weight = self.rae.decoder.decoder_pred.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def draw_for_training(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Pictures (F, 3, size, size) uint8 as the decoder draws them from noised tokens.

        As in RAE's code the noise goes onto the encoder's own tokens: statistics change nothing in training.
        """
        with torch.set_grad_enabled(self.train_encoder):
            tokens = self.rae.encoder(images / 255)
        sigma = self.noise_tau * torch.rand(len(tokens), 1, 1, device=tokens.device, generator=generator)
        noise = torch.randn(tokens.shape, device=tokens.device, generator=generator)
        return draw(self.rae.decoder, self.rae.encoder, tokens + sigma * noise), {}

    def draw(self, images: Tensor) -> Tensor:
        """Pictures (F, 3, size, size) uint8 as the shown weights draw them, about [0, 1]."""
        encoder, decoder = self._shown_parts()
        return draw(decoder, encoder, encoder(images / 255))

    def _shown_parts(self) -> tuple[Any, Any]:
        if self.train_encoder:
            return self.shown.encoder, self.shown.decoder
        return self.rae.encoder, self.shown

    def on_fit_start(self) -> None:
        """Measure the statistics of the encoder's tokens, unless a checkpoint brought them."""
        if self.statistics_pictures and not self._measured:
            encoder = self.rae.encoder
            mean, variance = self.moments_of(lambda images: encoder(images / 255), self.statistics_pictures)
            self.rae.statistics.set(mean, variance)
            self._measured = True

    def save(self, folder: Path) -> None:
        """Write the folder that `rae` loads."""
        encoder, decoder = self._shown_parts()
        network = RaeNetwork(self.rae.config)
        network.load_state_dict(self.rae.state_dict())
        network.encoder.load_state_dict(encoder.state_dict())
        network.decoder.load_state_dict(decoder.state_dict())
        save_folder(network, folder, getattr(torch, self.stored_as), self.compact)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint alone can be exported."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["rae_config"] = asdict(self.rae.config)
        checkpoint["statistics_measured"] = self._measured

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Statistics are measured once."""
        super().on_load_checkpoint(checkpoint)
        self._measured = checkpoint["statistics_measured"]


def export(checkpoint: str | Path, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write the autoencoder of a `LitRae` checkpoint, with its averaged weights, as a folder that `Rae` loads.

    Raises:
        Mistake: the checkpoint is of another kind.
    """
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if "rae_config" not in content:
        raise Mistake(f"'{checkpoint}' is not a checkpoint of an autoencoder (it has no rae_config)")
    state = content["state_dict"]
    network = RaeNetwork(RaeConfig(**content["rae_config"]))
    network.load_state_dict(_part(state, "rae."))
    if average := _part(state, "average.module."):
        joint = any(name.startswith("encoder.") for name in average)
        (network if joint else network.decoder).load_state_dict(average)
    return save_folder(network, folder, dtype)


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}

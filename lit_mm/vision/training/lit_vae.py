"""Training a small KL autoencoder: `lit-mm fit --config configs/vae/tiny.yaml`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lit_mm.mistake import Mistake
from lit_mm.training.schedule import WarmupCosine
from lit_mm.vision.metrics.features import FeatureNetwork
from lit_mm.vision.training.adversary import AdversarialTerm
from lit_mm.vision.training.lit_autoencoder import LitAutoencoder
from lit_mm.vision.training.losses import ReconstructionTerms


@dataclass(frozen=True)
class VaeConfig:
    """Sizes of a KL autoencoder, in diffusers' words.

    Args:
        image_size: side of the square pictures, in pixels.
        block_out_channels: channels of each resolution, from the finest; each but the first halves the side.
        layers_per_block: residual blocks at each resolution.
        latent_channels: of a position of the latents. FLUX has 16, Stable Diffusion 4.
        norm_num_groups: groups of the normalisation; divides all channels.
        patch_size: side of a token in positions of the latents, as it will be given to `lit_mm.vision.Vae`. In
            training it only says how many positions of a row of data a picture takes.
    """

    image_size: int = 64
    block_out_channels: list[int] = field(default_factory=lambda: [16, 32, 64, 128])
    layers_per_block: int = 1
    latent_channels: int = 16
    norm_num_groups: int = 8
    patch_size: int = 2


class LitVae(LitAutoencoder):
    """Trains diffusers' `AutoencoderKL` from scratch, encoder and decoder together.

    When fitting ends, the latents' mean and deviation are measured in float32 and written as `shift_factor` and
    `scaling_factor` into the folder `vae` under the run folder, which `diffusers.AutoencoderKL` and `lit_mm.vision.Vae`
    load. Validation draws the mode of the posterior.

    Args:
        vae: sizes.
        kl_weight: weight of the KL divergence from a standard normal, in nats per latent value, against a
            reconstruction loss in means over pixel values.
        loss: weights of the reconstruction terms; L1 alone by default.
        adversarial: settings of the adversarial term; none by default.
        judge: network in whose features validation measures distances; none by default.
        optimizer: AdamW without weight decay by default.
        schedule: of all learning rates.
        ema_decay: share of the averaged weights that a step keeps; the averaged weights are validated and saved. 0
            uses the trained ones.
        gradient_clip: largest norm of the gradient; null does not clip.
        max_shift: pictures are shifted by up to so many pixels and mirrored at random; 0 leaves them as they are.
        statistics_pictures: training pictures over which the latents' mean and deviation are measured.
        stored_as: number format of the folder written when fitting ends.

    Raises:
        Mistake: the pictures cannot be cut into whole tokens.
    """

    folder_name = "vae"

    def __init__(
        self,
        vae: VaeConfig = VaeConfig(),
        kl_weight: float = 1e-5,
        loss: ReconstructionTerms | None = None,
        adversarial: AdversarialTerm | None = None,
        judge: Callable[[], FeatureNetwork] | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0),
        schedule: WarmupCosine | None = None,
        ema_decay: float = 0.99,
        gradient_clip: float | None = 1.0,
        max_shift: int = 0,
        statistics_pictures: int = 2048,
        stored_as: Literal["float32", "float16"] = "float32",
    ) -> None:
        super().__init__(loss, adversarial, judge, optimizer, schedule, ema_decay, gradient_clip, max_shift)
        side = 2 ** (len(vae.block_out_channels) - 1) * vae.patch_size
        if vae.image_size % side:
            raise Mistake(f"model.vae.image_size is {vae.image_size}, but a token has {side} pixels on each side")
        self.vae = _create(vae)
        self.image_size = vae.image_size
        self.tokens_per_frame = (vae.image_size // side) ** 2
        self.kl_weight, self.statistics_pictures = kl_weight, statistics_pictures
        self.stored_as = stored_as
        self.start_average()

    @property
    def trained(self) -> nn.Module:
        """All of it."""
        return self.vae

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the decoder's last convolution."""
        return self.vae.decoder.conv_out.weight

    def draw_for_training(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Pictures (F, 3, size, size) uint8 as they are drawn from a sample of the posterior, and the KL term."""
        posterior = self.vae.encode(images / 127.5 - 1).latent_dist
        latents = posterior.sample(generator)
        losses = {"kl": self.kl_weight * posterior.kl().float().sum() / latents.numel()} if self.kl_weight else {}
        return (self.vae.decode(latents).sample + 1) / 2, losses

    def draw(self, images: Tensor) -> Tensor:
        """Pictures (F, 3, size, size) uint8 as the shown weights draw them from the posterior's mode, about [0, 1]."""
        vae: Any = self.shown
        return (vae.decode(_mode(vae, images)).sample + 1) / 2

    def finish(self) -> None:
        """Measure the latents of the shown weights, over all values of all pictures."""
        vae: Any = self.shown
        vae.eval()
        mean, var = self.moments_of(lambda images: _mode(vae, images), self.statistics_pictures)
        deviation = (var.mean() + mean.var(correction=0)).sqrt()
        vae.register_to_config(shift_factor=float(mean.mean()), scaling_factor=float(1 / deviation))

    def save(self, folder: Path) -> None:
        """Write the folder that diffusers loads."""
        vae: Any = copy.deepcopy(self.shown).to(getattr(torch, self.stored_as))
        vae.save_pretrained(folder)


def _mode(vae: Any, images: Tensor) -> Tensor:
    return vae.encode(images / 127.5 - 1).latent_dist.mode()


def _create(config: VaeConfig) -> Any:
    from diffusers import AutoencoderKL

    blocks = len(config.block_out_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=tuple(config.block_out_channels),
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_num_groups,
        sample_size=config.image_size,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )

"""Any published KL autoencoder (Stable Diffusion, FLUX …) as a visual tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mm.frozen import freeze
from lit_mm.hub import from_hub, is_repository
from lit_mm.mistake import MissingFile, Mistake
from lit_mm.vision.base import VisualTokenizer, hash_of
from lit_mm.vision.formats.folder import SHIPPED
from lit_mm.vision.statistics import Standardisation

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_AT_ONCE = 16  # pictures that go through the network together: its first layers work at full resolution


class Vae(VisualTokenizer):
    """A frozen `AutoencoderKL` of diffusers (paper §3), p x p positions of its latents to a token.

    256x256 pictures are 32x32 latents of 4 channels with Stable Diffusion and of 16 with FLUX: with patches of 2 they
    make 256 tokens of 16 and of 64 channels (ours: the paper does not say). A token lists channels first, then rows and
    columns of its patch.

    Pictures are encoded to the posterior's mode, not to a sample of it: a picture then has the same tokens every time,
    in reading, in validation and from a cache. Nothing is lost, as the posterior of a trained autoencoder is very
    narrow (its KL term weighs about 1e-6).

    Args:
        pretrained: folder in the format of diffusers, name of one that comes with the package (`vae_tiny`), or name on
            the Hub, like `stabilityai/sd-vae-ft-ema`.
        subfolder: of the folder or Hub repository, where the autoencoder is a part of a pipeline (FLUX: `vae`).
        image_size: side of the square pictures, in pixels.
        patch_size: side of a token in positions of the latents.

    Attributes:
        grid: tokens in a row of a picture.
        statistics: mean and deviation of the latents, (C, 1, 1), by the autoencoder's config.

    Raises:
        MissingFile: the weights cannot be had.
        Mistake: they are not those of an `AutoencoderKL`, or `image_size` is not a multiple of the side of a token.
    """

    def __init__(
        self,
        pretrained: str = "stabilityai/sd-vae-ft-ema",
        subfolder: str | None = None,
        image_size: int = 256,
        patch_size: int = 2,
    ) -> None:
        super().__init__()
        self.vae = load_vae(pretrained, subfolder)
        config = self.vae.config
        downsampling = 2 ** (len(config.block_out_channels) - 1)
        side = downsampling * patch_size
        if image_size < 1 or patch_size < 1 or image_size % side:
            raise Mistake(
                f"vision.image_size is {image_size}, but must be a multiple of {side}, the pixels of a token: "
                f"'{pretrained}' takes {downsampling} pixels to a position, and patch_size is {patch_size}"
            )
        self.image_size, self.patch_size = image_size, patch_size
        self.grid = image_size // side
        self.num_tokens = self.grid**2
        self.channels = config.latent_channels * patch_size**2
        mean, deviation = _config_statistics(config)
        self.statistics = Standardisation(mean, deviation / config.scaling_factor, persistent=False)
        freeze(self)
        self._fingerprint = f"vae-f{downsampling}-c{config.latent_channels}:{self._hash()}:{image_size}/{patch_size}"

    def encode(self, images: Tensor) -> Tensor:
        """(F, 3, image_size, image_size) uint8 to (F, num_tokens, channels) float32 of about unit variance."""
        self.check_images(images)
        return _in_parts(self._encode, images, (self.num_tokens, self.channels))

    def decode(self, latents: Tensor) -> Tensor:
        """(F, num_tokens, channels) to (F, 3, image_size, image_size) uint8."""
        images = _in_parts(self._decode, latents, (3, self.image_size, self.image_size))
        return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def fingerprint(self) -> str:
        """Downsampling, channels, a hash of all that encodes, and the patching.

        Neither the path nor the decoder is part of it: the same weights from the Hub and from a folder are one.
        """
        return self._fingerprint

    def _encode(self, images: Tensor) -> Tensor:
        pixels = (images.float() / 127.5 - 1).to(self.vae.dtype)
        latents = self.vae.encode(pixels).latent_dist.mode().float()
        return F.pixel_unshuffle(self.statistics(latents), self.patch_size).flatten(2).transpose(1, 2)

    def _decode(self, tokens: Tensor) -> Tensor:
        patches = tokens.float().transpose(1, 2).reshape(-1, self.channels, self.grid, self.grid)
        latents = self.statistics.inverse(F.pixel_shuffle(patches, self.patch_size))
        return self.vae.decode(latents.to(self.vae.dtype)).sample.float()

    def _hash(self) -> str:
        encoding = nn.ModuleDict({"encoder": self.vae.encoder})
        if self.vae.quant_conv is not None:
            encoding["quant_conv"] = self.vae.quant_conv
        shift, deviation = (values.float() for values in _config_statistics(self.vae.config))
        encoding.register_buffer("shift", shift)
        encoding.register_buffer("scale", self.vae.config.scaling_factor / deviation)
        return hash_of(encoding)


def _config_statistics(config: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation (C, 1, 1) of the latents, float64; `scaling_factor` is not part of the deviation."""
    mean = config.latents_mean or [config.shift_factor or 0.0] * config.latent_channels
    deviation = config.latents_std or [1.0] * config.latent_channels
    shift, scale = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (mean, deviation))
    return shift, scale


def load_vae(pretrained: str, subfolder: str | None = None) -> Any:
    """The `AutoencoderKL` of a folder or of the Hub, in float32, with every one of its weights.

    Raises:
        MissingFile: it cannot be read or downloaded.
        Mistake: its tensors are not those that its config describes, or its pictures are not RGB.
    """
    from diffusers import AutoencoderKL

    try:
        vae, loaded = AutoencoderKL.from_pretrained(
            _find(pretrained, subfolder), output_loading_info=True, low_cpu_mem_usage=False
        )
    except OSError as error:
        raise MissingFile(_not_found(pretrained, subfolder, error)) from error
    except (RuntimeError, ValueError) as error:
        raise Mistake(f"the autoencoder in vision.pretrained '{pretrained}' does not load: {_line(error)}") from error
    # diffusers would leave weights that it does not find random.
    for what, said in (("missing_keys", "lacks"), ("unexpected_keys", "has the unexpected")):
        if names := sorted(loaded[what]):
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise Mistake(
                f"vision.pretrained '{pretrained}' is not a whole AutoencoderKL: it {said} {', '.join(names[:3])}{more}"
            )
    if vae.config.in_channels != 3 or vae.config.out_channels != 3:
        raise Mistake(
            f"vision.pretrained '{pretrained}' takes {vae.config.in_channels} colours and draws "
            f"{vae.config.out_channels}; an autoencoder of RGB pictures has 3 and 3"
        )
    return vae


def _find(pretrained: str, subfolder: str | None) -> str | Path:
    """The folder of the autoencoder; of a name that means none, the name."""
    if Path(pretrained).is_dir():
        return Path(pretrained, subfolder or "")
    if (SHIPPED / pretrained).is_dir():
        return SHIPPED / pretrained
    if not is_repository(pretrained):
        return pretrained
    inside = f"{subfolder}/" if subfolder else ""
    return from_hub(pretrained, ([f"{inside}config.json"], [f"{inside}{name}" for name in _WEIGHTS]))[0].parent


def _not_found(pretrained: str, subfolder: str | None, error: OSError) -> str:
    if Path(pretrained).is_dir():
        return (
            f"no autoencoder can be read from vision.pretrained '{Path(pretrained, subfolder or '')}', which should "
            f"hold config.json and diffusion_pytorch_model.safetensors: {_line(error)}"
        )
    folder = f"weights/{Path(pretrained).name}"
    part = f' --include "{subfolder}/*"' if subfolder else ""
    return (
        f"vision.pretrained is '{pretrained}', which is no folder here and could not be had from the Hub "
        f"({_line(error)}); on a connected machine run `hf download {pretrained}{part} --local-dir {folder}` and set "
        f"vision.pretrained to {folder}, or train one with `lit-mm fit --config configs/vae/tiny.yaml`"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _in_parts(network: Callable[[Tensor], Tensor], inputs: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`network` of all pictures, a few at a time, (F, *shape) float32; of none, which diffusers cannot do, none."""
    parts = [network(part) for part in inputs.split(_AT_ONCE) if len(part)]
    return torch.cat(parts) if parts else inputs.new_zeros(0, *shape, dtype=torch.float32)

"""Representation autoencoder: a frozen ViT encoder with a ViT decoder that draws its tokens (arXiv 2510.11690)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_mm.mistake import Mistake
from lit_mm.vision.base import VisualTokenizer
from lit_mm.vision.encoder import TimmEncoder
from lit_mm.vision.statistics import LatentStatistics

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_rae import RAEDecoder


@dataclass(frozen=True)
class RaeConfig:
    """Everything needed to build an autoencoder; `config.json` of its folder.

    The names of the decoder's sizes are those of diffusers' `AutoencoderRAE`.

    Args:
        encoder: any timm ViT.
        image_size: side of the pictures that are encoded and drawn, in pixels.
        encoder_input_size: side to which pictures are resized for the encoder; `image_size` by default.
        encoder_args: further arguments of timm's model (`embed_dim`, `depth`, `num_heads`, `act_layer` …).
        encoder_layers: which layers' outputs make a token, -1 is the last; of several, each is normalised, then their
            mean. Earlier layers keep more of what a picture looks like.
        encoder_norm_eps: eps of all norms of the encoder; by default timm's, and 1e-6 in the last one.
        decoder_hidden_size: width of the decoder.
        decoder_num_hidden_layers: depth of the decoder.
        decoder_num_attention_heads: heads of the decoder.
        decoder_intermediate_size: width of the decoder's MLPs.
    """

    encoder: str = "vit_base_patch16_siglip_256.v2_webli"
    image_size: int = 256
    encoder_input_size: int | None = None
    encoder_args: dict[str, Any] = field(default_factory=dict)
    encoder_layers: list[int] = field(default_factory=lambda: [-1])
    encoder_norm_eps: float | None = None
    decoder_hidden_size: int = 1152
    decoder_num_hidden_layers: int = 28
    decoder_num_attention_heads: int = 16
    decoder_intermediate_size: int = 4096


class RaeNetwork(nn.Module):
    """Encoder and decoder with gradients, as they are trained. `Rae` is the frozen tokenizer made of them.

    Args:
        config: sizes of both.
        pretrained: weights of the encoder, see `TimmEncoder`.

    Attributes:
        statistics: mean and deviation of the encoder's tokens over a data set, 0 and 1 unless they are set.

    Raises:
        Mistake: the pictures cannot be cut into the encoder's grid of patches.
    """

    def __init__(self, config: RaeConfig, pretrained: bool | str = False) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config, pretrained)
        self.statistics = LatentStatistics(self.encoder.num_tokens, self.encoder.channels)
        self.decoder = build_decoder(config, self.encoder.num_tokens, self.encoder.channels)

    def encode(self, images: Tensor) -> Tensor:
        """(F, 3, image_size, image_size) uint8 to (F, num_tokens, channels) float32."""
        return self.statistics(self.encoder(images.float() / 255))

    def decode(self, latents: Tensor) -> Tensor:
        """(F, num_tokens, channels) to (F, 3, image_size, image_size), in [0, 1] but for the decoder's overshoot."""
        return draw(self.decoder, self.encoder, self.statistics.inverse(latents))


def build_encoder(config: RaeConfig, pretrained: bool | str) -> TimmEncoder:
    """The encoder that `config` describes."""
    size = config.encoder_input_size or config.image_size
    layers, eps = config.encoder_layers, config.encoder_norm_eps
    return TimmEncoder(config.encoder, size, pretrained, config.encoder_args, layers, eps)


def build_decoder(config: RaeConfig, num_tokens: int, channels: int) -> RAEDecoder:
    """The decoder that `config` describes, for `num_tokens` tokens (a square grid) of `channels` channels."""
    from diffusers.models.autoencoders.autoencoder_rae import RAEDecoder

    grid = round(num_tokens**0.5)
    if grid**2 != num_tokens or config.image_size % grid:
        raise Mistake(
            f"pictures of {config.image_size} pixels cannot be drawn from {num_tokens} tokens; vision.image_size must "
            f"be a multiple of the encoder's grid side {grid}"
        )
    return RAEDecoder(
        hidden_size=channels,
        decoder_hidden_size=config.decoder_hidden_size,
        decoder_num_hidden_layers=config.decoder_num_hidden_layers,
        decoder_num_attention_heads=config.decoder_num_attention_heads,
        decoder_intermediate_size=config.decoder_intermediate_size,
        num_patches=num_tokens,
        patch_size=config.image_size // grid,
        image_size=config.image_size,
    )


def draw(decoder: RAEDecoder, encoder: TimmEncoder, tokens: Tensor) -> Tensor:
    """The encoder's tokens (F, num_tokens, channels) to (F, 3, image_size, image_size), about [0, 1]."""
    tokens = tokens.to(decoder.decoder_embed.weight.dtype)
    return encoder.to_range(decoder.unpatchify(decoder(tokens).logits))


class Rae(VisualTokenizer):
    """A frozen encoder, and a decoder that draws what the encoder saw.

    Give `folder` for an autoencoder that was trained with `lit-mm fit --config configs/rae/…` or that diffusers'
    `AutoencoderRAE` saved, or `encoder` for any timm ViT, with `decoder` a published or trained one to draw with.

    Latents are the encoder's last tokens, standardised over their channels without learned scale (Scale-RAE, arXiv
    2601.16208): zero mean and unit variance per token. With `statistics` every channel at every position is
    standardised over a data set on top of that (RAE, arXiv 2510.11690).

    Args:
        folder: folder of an autoencoder, or the name of one that comes with the package (`rae_tiny`).
        encoder: any timm ViT by name. All that follows is for it, and not looked at with `folder`.
        image_size: side of the pictures, in pixels.
        encoder_input_size: side to which pictures are resized for the encoder; `image_size` by default.
        pretrained: true loads the encoder's published weights from the Hub; a path loads a file, or a folder as it was
            downloaded, of timm or of transformers; false leaves them random.
        encoder_args: further arguments of timm's model.
        encoder_layers: which layers' outputs make a token, see `RaeConfig`; the last by default.
        encoder_norm_eps: eps of all norms of the encoder; timm's by default.
        statistics: `stat.pt` of the RAE collection, or a folder of an autoencoder that has statistics.
        decoder: `model.pt` of the RAE collection or the folder of it, folder of Scale-RAE (`model.pt` and
            `config.json`), or folder of an autoencoder; without it pictures are read but cannot be drawn.

    Raises:
        Mistake: neither or both of `folder` and `encoder`, or a file does not fit.
        MissingFile: a folder or a file in it is missing, or the pretrained weights cannot be had.
    """

    def __init__(
        self,
        folder: str | None = None,
        encoder: str | None = None,
        image_size: int = 256,
        encoder_input_size: int | None = None,
        pretrained: bool | str = True,
        encoder_args: dict[str, Any] | None = None,
        encoder_layers: list[int] | None = None,
        encoder_norm_eps: float | None = None,
        statistics: str | None = None,
        decoder: str | None = None,
    ) -> None:
        super().__init__()
        from lit_mm.vision.formats.folder import load_decoder, load_folder, load_statistics

        if (folder is None) == (encoder is None):
            raise Mistake("vision needs either folder or encoder: a trained folder, or the name of a timm ViT")
        self.decoder: RAEDecoder | None = None
        if folder is not None:
            network = load_folder(folder)
            config, self.encoder, self.decoder = network.config, network.encoder, network.decoder
            self.statistics = network.statistics
        else:
            assert encoder is not None
            layers = [-1] if encoder_layers is None else encoder_layers
            config = RaeConfig(encoder, image_size, encoder_input_size, encoder_args or {}, layers, encoder_norm_eps)
            self.encoder = build_encoder(config, pretrained)
            self.statistics = LatentStatistics(self.encoder.num_tokens, self.encoder.channels)
            if statistics is not None:
                load_statistics(statistics, self.statistics)
            if decoder is not None:
                self.decoder = load_decoder(decoder, config, self.encoder)
        self.image_size = config.image_size
        self.num_tokens = self.encoder.num_tokens
        self.channels = self.encoder.channels
        self.requires_grad_(False)
        self.train(False)
        # Taken now, from the weights as loaded: a later change of precision must not change the name.
        self._fingerprint = _name_latents(config, self.encoder, self.statistics)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(F, 3, image_size, image_size) uint8 to (F, num_tokens, channels) float32 of about unit variance."""
        self.check_images(images)
        return self.statistics(self.encoder(images.float() / 255))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(F, num_tokens, channels) to (F, 3, image_size, image_size) uint8.

        Raises:
            RuntimeError: there is no decoder.
        """
        if self.decoder is None:
            raise RuntimeError("this visual tokenizer has no decoder; set vision.decoder to a folder that holds one")
        images = draw(self.decoder, self.encoder, self.statistics.inverse(latents))
        return (images * 255).round().clamp(0, 255).to(torch.uint8)

    def fingerprint(self) -> str:
        """Encoder's name, and a hash of its weights and settings, of sizes and of statistics.

        The decoder is left out: a better one changes no latent.
        """
        return self._fingerprint


def _name_latents(config: RaeConfig, encoder: TimmEncoder, statistics: LatentStatistics) -> str:
    settings = {name: value for name, value in asdict(config).items() if not name.startswith("decoder_")}
    pixels = [encoder.pixels.mean.flatten().tolist(), encoder.pixels.std.flatten().tolist()]
    settings |= {"encoder_input_size": encoder.input_size, "encoder_layers": encoder.layers, "pixels": pixels}
    parts = nn.ModuleDict({"encoder": encoder, "statistics": statistics})
    return f"rae:{config.encoder}:{hash_of(parts, json.dumps(settings, sort_keys=True))}"


def hash_of(module: nn.Module, settings: str = "") -> str:
    """First 16 hex digits of a SHA-256 over names, shapes and float32 values of a module's tensors, and `settings`."""
    digest = hashlib.sha256(settings.encode())
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]

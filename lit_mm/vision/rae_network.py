"""Encoder and decoder of a representation autoencoder (arXiv 2510.11690), and the settings that build them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lit_mm.mistake import Mistake
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
        encoder_norm_affine: whether the encoder's last norm keeps its weight and bias.
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
    encoder_norm_affine: bool = False
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
    layers, eps, affine = config.encoder_layers, config.encoder_norm_eps, config.encoder_norm_affine
    return TimmEncoder(config.encoder, size, pretrained, config.encoder_args, layers, eps, affine)


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

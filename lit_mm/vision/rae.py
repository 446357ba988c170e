"""Representation autoencoder: a frozen ViT encoder with a ViT decoder that draws its tokens (arXiv 2510.11690)."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_mm.frozen import freeze
from lit_mm.mistake import Mistake
from lit_mm.vision.base import VisualTokenizer, hash_of
from lit_mm.vision.encoder import TimmEncoder
from lit_mm.vision.formats.folder import load_decoder, load_folder, load_statistics
from lit_mm.vision.rae_network import RaeConfig, build_encoder, draw
from lit_mm.vision.statistics import LatentStatistics

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_rae import RAEDecoder


class Rae(VisualTokenizer):
    """A frozen encoder, and a decoder that draws what the encoder saw.

    Give `folder` for an autoencoder that was trained with `lit-mm fit --config configs/rae/…` or that diffusers'
    `AutoencoderRAE` saved, or `encoder` for any timm ViT, with `decoder` a published or trained one to draw with.

    Latents are the encoder's last tokens, standardised over their channels without learned scale (RAE, arXiv
    2510.11690): zero mean and unit variance per token. With `encoder_norm_affine` they are what the encoder's last norm
    gives with its weight and bias, as Scale-RAE (arXiv 2601.16208) has them of Web-SSL, though not of SigLIP 2. With
    `statistics` every channel at every position is standardised over a data set on top of that (RAE). All of it is
    ours: the paper does not say.

    Args:
        folder: folder of an autoencoder, or the name of one that comes with the package (`rae_tiny`).
        encoder: any timm ViT by name. All that follows is for it, and not looked at with `folder`.
        image_size: side of the pictures, in pixels.
        encoder_input_size: side to which pictures are resized for the encoder; `image_size` by default.
        pretrained: true loads timm's published weights from the Hub; a path loads a file, or a folder as it was
            downloaded, of timm or of transformers, `owner/name` such a folder of the Hub; false leaves them random.
        encoder_args: further arguments of timm's model.
        encoder_layers: which layers' outputs make a token, see `RaeConfig`; the last by default.
        encoder_norm_eps: eps of all norms of the encoder; timm's by default.
        encoder_norm_affine: whether the encoder's last norm keeps its weight and bias; a published decoder draws the
            tokens of one kind alone, and refuses the other.
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
        encoder_norm_affine: bool = False,
        statistics: str | None = None,
        decoder: str | None = None,
    ) -> None:
        super().__init__()
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
            config = RaeConfig(
                encoder,
                image_size,
                encoder_input_size,
                encoder_args or {},
                layers,
                encoder_norm_eps,
                encoder_norm_affine,
            )
            self.encoder = build_encoder(config, pretrained)
            self.statistics = LatentStatistics(self.encoder.num_tokens, self.encoder.channels)
            if statistics is not None:
                load_statistics(statistics, self.statistics)
            if decoder is not None:
                self.decoder = load_decoder(decoder, config, self.encoder)
        self.image_size = config.image_size
        self.num_tokens = self.encoder.num_tokens
        self.channels = self.encoder.channels
        freeze(self)
        # Taken now, from the weights as loaded: a later change of precision must not change the name.
        self._fingerprint = _name_latents(config, self.encoder, self.statistics)

    def encode(self, images: Tensor) -> Tensor:
        """(F, 3, image_size, image_size) uint8 to (F, num_tokens, channels) float32 of about unit variance."""
        self.check_images(images)
        return self.statistics(self.encoder(images.float() / 255))

    def decode(self, latents: Tensor) -> Tensor:
        """(F, num_tokens, channels) to (F, 3, image_size, image_size) uint8.

        Raises:
            Mistake: there is no decoder.
        """
        if self.decoder is None:
            raise Mistake("this visual tokenizer has no decoder; set vision.decoder to a folder that holds one")
        images = draw(self.decoder, self.encoder, self.statistics.inverse(latents))
        return (images * 255).round().clamp(0, 255).to(torch.uint8)

    def fingerprint(self) -> str:
        """Encoder's name, and a hash of its weights and settings, of sizes and of statistics.

        The decoder is left out: a better one changes no latent.
        """
        return self._fingerprint


def _name_latents(config: RaeConfig, encoder: TimmEncoder, statistics: LatentStatistics) -> str:
    settings = {name: value for name, value in asdict(config).items() if not name.startswith("decoder_")}
    settings.pop("encoder_norm_affine")  # a tensor of the encoder's if it is there
    pixels = [encoder.pixels.mean.flatten().tolist(), encoder.pixels.std.flatten().tolist()]
    settings |= {"encoder_input_size": encoder.input_size, "encoder_layers": encoder.layers, "pixels": pixels}
    parts = nn.ModuleDict({"encoder": encoder, "statistics": statistics})
    return f"rae:{config.encoder}:{hash_of(parts, json.dumps(settings, sort_keys=True))}"

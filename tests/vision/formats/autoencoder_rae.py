"""Diffusers' own autoencoder at small sizes: the truth that folders are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderRAE
from safetensors.torch import load_file
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel

from tests.vision.conftest import randomised

DECODER = {
    "decoder_hidden_size": 48,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 96,
}
WEIGHTS = "diffusion_pytorch_model.safetensors"
# Diffusers 0.42 looks for `vision_model` in SigLIP, which since transformers 5.6 is the model itself.
_SMALL = SiglipVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
if not hasattr(SiglipVisionModel(_SMALL), "vision_model"):
    SiglipVisionModel.vision_model = property(lambda self: self)
# From_pretrained of diffusers 0.37 builds no DINOv2 of transformers 4.
LOADS_DINOV2 = int(transformers.__version__.split(".")[0]) >= 5
diffusers.utils.logging.set_verbosity_error()


def build(encoder_type: str, patch: int, size: int, **arguments: Any) -> AutoencoderRAE:
    """An autoencoder with random weights everywhere, that draws patches of 8 pixels."""
    model = AutoencoderRAE(
        encoder_type=encoder_type,
        encoder_hidden_size=128,
        encoder_patch_size=patch,
        encoder_num_hidden_layers=2,
        encoder_input_size=size,
        patch_size=8,
        **DECODER,
        **arguments,
    ).eval()
    randomised(model)
    return model


def load(folder: Path, encoder_type: str) -> AutoencoderRAE:
    """The folder as diffusers loads it; every tensor must be there."""
    settings = {name: value for name, value in AutoencoderRAE.load_config(folder).items() if name[0] != "_"}
    model = AutoencoderRAE(**settings).eval()
    model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    if encoder_type != "dinov2" or LOADS_DINOV2:
        model = AutoencoderRAE.from_pretrained(folder).float().eval()  # it keeps the stored precision
    return model


@torch.no_grad()
def encode(model: AutoencoderRAE, images: Tensor) -> Tensor:
    """Latents (F, tokens, channels) of pictures uint8."""
    latents = model.encode(images / 255).latent
    return latents.flatten(2).transpose(1, 2) if latents.ndim == 4 else latents


@torch.no_grad()
def decode(model: AutoencoderRAE, latents: Tensor) -> Tensor:
    """Pictures in [0, 1] from latents (F, tokens, channels)."""
    if model.reshape_to_2d:
        grid = round(latents.shape[1] ** 0.5)
        latents = latents.transpose(1, 2).unflatten(2, (grid, grid))
    return model.decode(latents).sample

"""One process of two that share a batch of pairs, and the small model they train."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from lit_mm.vision.training.siglip import Siglip, SiglipConfig, contrastive_loss

ARGS = {"embed_dim": 64, "depth": 2, "num_heads": 4, "patch_size": 8, "act_layer": "gelu_tanh"}
CONFIG = SiglipConfig(
    "vit_base_patch16_siglip_256",
    image_size=32,
    encoder_args=ARGS,
    vocab_size=300,
    text_width=32,
    text_depth=1,
    text_heads=2,
    longest_caption=24,
)


def siglip(seed: int = 0) -> Siglip:
    torch.manual_seed(seed)
    return Siglip(CONFIG).eval()


def pairs(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (count, 3, 32, 32) in [0, 1], captions (count, 24) of which some are equal, and their lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 4, (count,), generator=generator)
    captions = torch.randint(1, 3, (count, 24), generator=generator) * (torch.arange(24) < lengths[:, None])
    return torch.rand(count, 3, 32, 32, generator=generator), captions, lengths


def gradients(model: Siglip) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def one_of_two(rank: int) -> dict[str, Tensor]:
    """Loss and gradients of this process's part of eleven pairs, averaged over both as data-parallel training does."""
    model = siglip().double()
    images, captions, lengths = pairs(11)
    mine = slice(0, 4) if rank == 0 else slice(4, 11)
    seen, said = model.embed_images(images[mine].double()), model.embed_captions(captions[mine], lengths[mine])
    loss = contrastive_loss(model, seen, said, captions[mine])
    loss.backward()
    found = {"loss": loss.detach(), **gradients(model)}
    for tensor in found.values():
        dist.all_reduce(tensor)
        tensor /= 2
    return found

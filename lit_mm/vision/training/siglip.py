"""SigLIP: a picture tower and a text tower that agree on which caption belongs to which picture (arXiv 2303.15343)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mm.mistake import Mistake
from lit_mm.tensor_files import save_tensors
from lit_mm.vision.statistics import pixel_statistics

INITIAL_TEMPERATURE, INITIAL_BIAS = 10.0, -10.0  # SigLIP, section 3.2


@dataclass(frozen=True)
class SiglipConfig:
    """Sizes of both towers.

    Args:
        encoder: any timm ViT that pools by attention, as those named `…siglip…` do.
        image_size: side of the pictures, in pixels.
        encoder_args: further arguments of timm's model (`embed_dim`, `depth`, `num_heads` …).
        vocab_size: entries of the text tower's embedding; at least the tokenizer's.
        text_width: width of the text tower.
        text_depth: its layers.
        text_heads: its attention heads.
        longest_caption: captions are cut to so many tokens.
        text_dropout: share of activations dropped in the text tower.
        drop_path: share of pictures that skip a layer of the picture tower, rising from 0 at the first to this at the
            last.
    """

    encoder: str = "vit_base_patch16_siglip_256"
    image_size: int = 256
    encoder_args: dict[str, Any] = field(default_factory=dict)
    vocab_size: int = 8192
    text_width: int = 256
    text_depth: int = 4
    text_heads: int = 4
    longest_caption: int = 64
    text_dropout: float = 0.0
    drop_path: float = 0.0


class Siglip(nn.Module):
    """Both towers, the temperature and the bias.

    Raises:
        Mistake: timm has no such model, or it does not pool its tokens by attention.
    """

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = _create_vision(config)
        # A tokenizer leaves out the scale and offset of the last norm, so they stay at one and zero: what is trained
        # here are the very tokens that it gives. The pooling behind has layers enough to scale them.
        cast(nn.Module, self.vision.norm).requires_grad_(False)
        self.text = TextTower(config, int(cast(Any, self.vision).embed_dim))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(INITIAL_TEMPERATURE)))
        self.bias = nn.Parameter(torch.tensor(INITIAL_BIAS))
        self.pixels = pixel_statistics(cast(Any, self.vision).pretrained_cfg)

    def normalised(self, images: Tensor) -> Tensor:
        """(P, 3, size, size) in [0, 1] to what the picture tower takes."""
        return self.pixels(images)

    def tokens(self, normalised: Tensor) -> Tensor:
        """Normalised pictures to (P, N, C) tokens of mean 0 and variance 1, class and register tokens included."""
        return cast(Any, self.vision).forward_features(normalised)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """(P, N, C) tokens to (P, C) of length 1."""
        return F.normalize(cast(Any, self.vision).forward_head(tokens), dim=-1)

    def embed_images(self, images: Tensor, tower: nn.Module | None = None) -> Tensor:
        """(P, 3, size, size) in [0, 1] to (P, C) of length 1, by the picture tower or by another one like it."""
        vision = cast(Any, tower or self.vision)
        return F.normalize(vision.forward_head(vision.forward_features(self.normalised(images))), dim=-1)

    def embed_captions(self, captions: Tensor, lengths: Tensor) -> Tensor:
        """(P, T) int64 ids, and how many of them are each caption's, to (P, C) of length 1."""
        return F.normalize(self.text(captions, lengths), dim=-1)

    def logits(self, images: Tensor, captions: Tensor) -> Tensor:
        """Embeddings (I, C) and (T, C) to (I, T): how likely each caption is to belong to each picture."""
        return images @ captions.T * self.log_temperature.exp() + self.bias


class TextTower(nn.Module):
    """A small two-way transformer over a caption; the mean of its last tokens is the caption's embedding.

    Args:
        config: sizes.
        channels: of the embedding.
    """

    def __init__(self, config: SiglipConfig, channels: int) -> None:
        super().__init__()
        width = config.text_width
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.position = nn.Parameter(torch.randn(config.longest_caption, width) * 0.01)
        nn.init.normal_(self.embedding.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            width, config.text_heads, 4 * width, config.text_dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.text_depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, channels)

    def forward(self, captions: Tensor, lengths: Tensor) -> Tensor:
        """(P, T) int64 ids and (P,) lengths to (P, channels)."""
        count = captions.shape[1]
        padding = torch.arange(count, device=captions.device) >= lengths[:, None]
        hidden = self.layers(self.embedding(captions) + self.position[:count], src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(-1).to(hidden.dtype)
        return self.head((hidden * kept).sum(1) / kept.sum(1))


def sigmoid_loss(logits: Tensor, belongs: Tensor) -> Tensor:
    """Sum over all pictures and captions of -log sigmoid(±logit), plus where they belong together (equation 1).

    Args:
        logits: (I, T).
        belongs: (I, T) bool.
    """
    return -F.logsigmoid(torch.where(belongs, logits, -logits)).sum()


def equal_captions(some: Tensor, others: Tensor) -> Tensor:
    """(I, T) bool: whether captions, (I, L) and (T, L) ids, are the same.

    A picture belongs to every caption that says the same as its own: to push it away from one of two equal captions
    and towards the other would be asking for the impossible. Short captions of few kinds of things repeat often.
    """
    numbers = torch.cat([some, others]).unique(dim=0, return_inverse=True)[1]
    return numbers[: len(some), None] == numbers[None, len(some) :]


def gather_rows(rows: Tensor) -> Tensor:
    """(n, …) of this process to the rows of all, in order of rank; n may differ. Gradients flow back to each owner."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows
    from torch.distributed.nn.functional import all_gather

    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(count) for count in counts]
    padded = torch.cat([rows, rows.new_zeros(max(sizes) - len(rows), *rows.shape[1:])])
    if rows.requires_grad:
        parts = all_gather(padded)
    else:
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded.contiguous())
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def contrastive_loss(siglip: Siglip, image_embeddings: Tensor, caption_embeddings: Tensor, captions: Tensor) -> Tensor:
    """The sigmoid loss of this process's pictures with the captions of all processes.

    Its mean over processes, which is what data-parallel training descends, is the loss of all pictures and all
    captions, divided by their number.

    Args:
        siglip: has temperature and bias.
        image_embeddings: (P, C).
        caption_embeddings: (P, C).
        captions: (P, longest_caption) ids.
    """
    everyones = gather_rows(caption_embeddings)
    belongs = equal_captions(captions, gather_rows(captions))
    processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    return processes * sigmoid_loss(siglip.logits(image_embeddings, everyones), belongs) / max(1, len(everyones))


def retrieval_recall(scores: Tensor, belongs: Tensor, k: int) -> float:
    """Share of rows of `scores` (n, m) that have one that `belongs` (n, m) among their k highest."""
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return float(belongs.gather(1, best).any(1).double().mean())


def save_encoder(config: SiglipConfig, tower: nn.Module, folder: str | Path) -> Path:
    """Write a picture tower as `model.safetensors`, named as timm does, and how to build it as `config.json`.

    `vision.pretrained` of `Rae` takes the path of `model.safetensors`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tower.state_dict().items()}
    save_tensors(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    described = {"encoder": config.encoder, "image_size": config.image_size, "encoder_args": config.encoder_args}
    (folder / "config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf8")
    return folder


def _create_vision(config: SiglipConfig) -> nn.Module:
    import timm

    arguments: Mapping[str, Any] = {"num_classes": 0, "img_size": config.image_size, **config.encoder_args}
    if not timm.is_model(config.encoder):
        raise Mistake(f"model.siglip.encoder is '{config.encoder}', which timm does not know; try a '…siglip…' ViT")
    try:
        vision = timm.create_model(config.encoder, drop_path_rate=config.drop_path, **arguments)
    except TypeError as error:
        raise Mistake(
            f"model.siglip.encoder '{config.encoder}' is not a timm ViT with these encoder_args: {error}"
        ) from error
    if getattr(vision, "attn_pool", None) is None:
        raise Mistake(
            f"model.siglip.encoder '{config.encoder}' does not pool its tokens by attention; choose a '…siglip…' ViT "
            "or set encoder_args.global_pool to map"
        )
    return vision

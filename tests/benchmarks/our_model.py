"""The real model and its real training step for benchmarks, without Trainer, data modules and visual tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from lit_mm.backbone import FeedForward, Transformer
from lit_mm.backbone.masks import AttentionBackend
from lit_mm.module import LitMultimodal
from lit_mm.parallel import Parallelize
from lit_mm.sequence import PackedBatch
from lit_mm.vision import VisualTokenizer


@dataclass(frozen=True)
class Size:
    """Of a model; the defaults are those of configs/model/tiny.yaml."""

    dim: int = 256
    depth: int = 6
    heads: int = 4
    kv_heads: int = 2
    vocabulary: int = 8192
    tokens_per_frame: int = 16
    channels: int = 256


class GivenLatents(VisualTokenizer):
    """Stands for any visual tokenizer, whose latents come with the batch, as from the latent cache."""

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.image_size, self.num_tokens, self.channels = 1, tokens, channels

    def encode(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        raise NotImplementedError

    def fingerprint(self) -> str:
        return "given"


def lit_model(
    size: Size,
    feed_forward: Callable[[int], FeedForward],
    vision: VisualTokenizer | None = None,
    backend: AttentionBackend = "auto",
    compile: bool = False,
    compute_dtype: torch.dtype = torch.float32,
) -> LitMultimodal:
    """The LightningModule with fresh weights, the same every time, ready to train on one device."""
    torch.manual_seed(0)

    def backbone(vocabulary: int) -> Transformer:
        widths = size.dim, size.depth, size.heads, size.kv_heads
        return Transformer(vocabulary, *widths, feed_forward, attention_backend=backend)

    module = LitMultimodal(
        backbone,
        vision or GivenLatents(size.tokens_per_frame, size.channels),
        size.vocabulary,
        parallelize=Parallelize(compile=compile),
    )
    module.compute_dtype = compute_dtype
    module.configure_model()
    nn.init.normal_(module.model.velocity_head.linear.weight, std=0.02)  # or its gradient would be nothing at first
    module.trainer = SimpleNamespace(world_size=1, accumulate_grad_batches=1)  # type: ignore[assignment]
    return module.train()


def with_latents(batch: PackedBatch, channels: int) -> PackedBatch:
    """A batch whose pictures have been encoded before, to random latents."""
    return replace(batch, frames=torch.randn(*batch.visual_positions.shape, channels))


class TrainingStep:
    """What the trainer does with a batch: losses, backward pass, clipping, AdamW, balance of experts.

    Args:
        module: of `lit_model`.
        batches: used in turns.
    """

    def __init__(self, module: LitMultimodal, batches: Sequence[PackedBatch]) -> None:
        self.module, self.batches = module, batches
        self.parameters = list(module.model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def __call__(self, number: int) -> None:
        """Train on one batch."""
        device = self.parameters[0].device
        batch = self.batches[number % len(self.batches)].to(device, non_blocking=True)
        loss = self.module.training_step(batch, number)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.module._expert_tokens is not None:
            self.module.model.backbone.balance_experts(self.module._expert_tokens)
            self.module._expert_tokens = None

"""A multimodal model without pretrained parts, and a network that judges its pictures."""

from __future__ import annotations

from lightning.pytorch import seed_everything
from torch import Tensor
from torch.nn import functional as F

from lit_mm.backbone import ModalityFeedForward, Transformer
from lit_mm.flow.sampler import FlowSampler
from lit_mm.module import LitMultimodal
from lit_mm.vision import Pixels
from lit_mm.vision.metrics.features import FeatureNetwork


class Thumbnails(FeatureNetwork):
    """Pictures at 8x8: easy to reason about, and none of the tokenizers."""

    name, channels = "thumbnails", (192,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [F.adaptive_avg_pool2d(images, 8).flatten(1)[:, :, None, None]]


def small_model() -> LitMultimodal:
    """Of width 64 on pixels, with the same weights every time."""
    seed_everything(0)
    return LitMultimodal(
        backbone=lambda vocabulary: Transformer(
            vocabulary, dim=64, depth=2, heads=2, kv_heads=1, feed_forward=lambda dim: ModalityFeedForward(dim, 64)
        ),
        vision=Pixels(),
        vocab_size=8192,
        sampler=FlowSampler(steps=2),
    )

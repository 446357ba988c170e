"""Floating-point operations of training, and what a device can do at most."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.sequence import PackedBatch

# Dense bfloat16 operations a second without sparsity, from NVIDIA's data sheets; the first that matches is meant.
PEAKS = {
    r"B200": 2250e12,
    r"H200": 989e12,
    r"H100 PCIe": 756e12,
    r"H100 NVL": 835e12,
    r"H100": 989e12,
    r"A100": 312e12,
    r"L40S": 362e12,
    r"L4": 121e12,
    r"RTX 4090": 165e12,
}


def peak(device_name: str) -> float | None:
    """Operations a second a device can do in bfloat16; None of a device that is not in the table.

    Args:
        device_name: as `torch.cuda.get_device_name` says it.
    """
    return next((value for name, value in PEAKS.items() if re.search(rf"\b{name}\b", device_name, re.I)), None)


class TrainingFlops(NamedTuple):
    """Operations of forward and backward passes by part of the model; those of activation checkpointing do not count.

    Attributes:
        position: of a position in a row, in all blocks but for attention between positions.
        pair: of a query that attends to a key, in all blocks.
        predicted: of a text token that is predicted.
        visual: of a visual token that is read or noised.
        drawn: of a visual token that is drawn.
    """

    position: int
    pair: int
    predicted: int
    visual: int
    drawn: int

    @classmethod
    def of(cls, model: MultimodalTransformer) -> TrainingFlops:
        """Six for each parameter that a token passes (`C = 6 N D`, with the active N of experts)."""
        blocks: Any = model.backbone.layers
        passed = sum(_size(b) - _size(b.feed_forward) + b.feed_forward.active_parameters() for b in blocks)
        return cls(
            position=6 * passed,
            pair=12 * model.backbone.dim * len(blocks),  # queries times keys, and weights times values
            predicted=6 * _size(model.text_head),
            visual=6 * _size(model.visual_input.linear),
            drawn=6 * _size(model.velocity_head),
        )

    def of_batch(self, batch: PackedBatch) -> int:
        """All but attention between positions, from shapes alone: the device is not asked."""
        drawn = len(batch.drawn_frames) * batch.visual_positions.shape[1]
        return (
            self.position * batch.tokens.numel()
            + self.predicted * len(batch.predicted_positions)
            + self.visual * batch.visual_positions.numel()
            + self.drawn * drawn
        )


def attended_pairs(batch: PackedBatch) -> Tensor:
    """() float64, how many queries attend to keys, on the batch's device: every position to itself and those before it.

    That the later tokens of a frame are seen by its earlier ones is left out: at most half a frame for a visual token.
    """
    return (batch.positions + 1).sum(dtype=torch.float64)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())

"""Which weights are for text, which for visual tokens, and which for both."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lit_mm.backbone.feed_forward import ModalityFeedForward
from lit_mm.backbone.modality import ModalityLinear, ModalityRMSNorm
from lit_mm.model.multimodal import MultimodalTransformer

PARTS = TEXT, VISUAL, SHARED = ("text", "visual", "shared")
SPLIT = (ModalityFeedForward, ModalityLinear, ModalityRMSNorm)  # the first row of their weights is for text


def weights_by_part(model: MultimodalTransformer) -> list[tuple[nn.Parameter, str | None]]:
    """Trained weights, each with its part; without one where its first row is for text and the second visual."""
    halves = {id(p) for module in model.modules() if isinstance(module, SPLIT) for p in module.parameters()}
    text = {id(p) for module in (model.backbone.embedding, model.text_head) for p in module.parameters()}
    visual = {id(p) for module in (model.visual_input, model.velocity_head) for p in module.parameters()}

    def part(parameter: nn.Parameter) -> str | None:
        if id(parameter) in halves:
            return None
        return TEXT if id(parameter) in text else VISUAL if id(parameter) in visual else SHARED

    return [(p, part(p)) for p in model.parameters() if p.requires_grad]


def norms_by_part(
    weights: list[tuple[nn.Parameter, str | None]], of: Callable[[nn.Parameter], Tensor | None]
) -> dict[str, Tensor]:
    """Norm () of what belongs to the weights of each part, over all ranks where it is sharded.

    Args:
        weights: see `weights_by_part`.
        of: what belongs to a weight, of its shape, such as its gradient; None where there is nothing.
    """
    squares: dict[str, list[Tensor]] = {part: [] for part in PARTS}
    for parameter, part in weights:
        if (found := of(parameter)) is None:
            continue
        by_row = (
            found.detach().float().square().flatten(1).sum(1) if part is None else found.detach().float().square().sum()
        )
        square = by_row.full_tensor() if isinstance(by_row, DTensor) else by_row
        for name, value in zip((TEXT, VISUAL) if part is None else (part,), square.reshape(-1), strict=True):
            squares[name].append(value)
    return {part: torch.stack(values).sum().sqrt() for part, values in squares.items() if values}

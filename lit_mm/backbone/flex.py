"""FlexAttention. Imported where it is used alone, as its compiler takes two seconds to import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from lit_mm.mistake import Mistake

# Compiled here, once for all layers, and not where they are used: within a compiled block Dynamo would stop at the call
# of `torch.compile`, which Lightning has replaced. Uncompiled, FlexAttention is slow, and the builder of masks
# materialises every pair. The option lets selective checkpointing see the attention of a block that is not compiled.
_flex_attention = torch.compile(flex_attention, options={"wrap_inductor_compiled_regions": True})
_create_block_mask = torch.compile(create_block_mask)


@dataclass(frozen=True)
class FlexMask:
    """A block-sparse mask for FlexAttention, which has a backward pass on CUDA only."""

    block_mask: BlockMask

    @classmethod
    def build(
        cls, allowed: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], rows: int, length: int, device: torch.device
    ) -> FlexMask:
        """The mask of a batch.

        Args:
            allowed: whether, in a row and a head, a query may attend to a key; all are single numbers.
            rows: of the batch.
            length: of each row, in tokens.
            device: where the mask is used.
        """
        create = _create_block_mask if device.type == "cuda" else create_block_mask
        return cls(create(allowed, rows, None, length, length, device=device))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `lit_mm.backbone.masks.AttentionContext.attend`.

        Raises:
            Mistake: gradients are wanted on a CPU.
        """
        if query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad:
            raise Mistake(
                "model.backbone.attention_backend is 'flex', which cannot train on a CPU; use 'auto' or 'sdpa'"
            )
        attention: Any = _flex_attention if query.is_cuda else flex_attention
        grouped = query.shape[1] != key.shape[1]
        return attention(query, key, value, block_mask=self.block_mask, enable_gqa=grouped)

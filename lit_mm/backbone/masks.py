"""Who may attend to whom: text causally, a frame within itself in both directions, documents never to each other.

    allowed(q, k) = same document and (k <= q or same frame) and (k is of branch 0 or of the same branch)

(the paper's recipe; branches are ours, see `lit_mm.sequence.Document`). Padding attends to itself alone, which keeps
its softmax finite and its values out of everything else. A mask is built once per batch and used by every layer.
`DenseMask` runs anywhere and is the reference. `FlexMask` on a GPU and `BlockSparseMask` on a CPU skip blocks of pairs
that hold nothing, which is what makes packing cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from lit_mm.backbone.block_sparse import block_slices, block_sparse_attention, key_ranges
from lit_mm.backbone.layout import SequenceLayout
from lit_mm.mistake import Mistake

AttentionBackend = Literal["auto", "sdpa", "flex", "blocks"]


class AttentionMask(Protocol):
    """A mask that knows how to attend under itself."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Grouped-query attention.

        Args:
            query: (B, heads, L, head_dim).
            key: (B, kv_heads, L, head_dim); `heads` is a multiple of `kv_heads`.
            value: as `key`.

        Returns:
            (B, heads, L, head_dim).
        """
        ...


@dataclass(frozen=True)
class DenseMask:
    """A truth value for every pair, for `scaled_dot_product_attention`.

    Attributes:
        allowed: (B, 1, L, L) bool, row q, column k.
    """

    allowed: Tensor

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `AttentionMask.attend`."""
        grouped = query.shape[1] != key.shape[1]
        return scaled_dot_product_attention(query, key, value, attn_mask=self.allowed, enable_gqa=grouped)


@dataclass(frozen=True)
class BlockSparseMask:
    """Only the range of keys that each block of queries needs, for a CPU; see `block_sparse_attention`.

    Attributes:
        bias: (pairs,) float32, 0 or minus infinity, of one block after the other.
        ranges: (B, blocks, 2) int64, see `key_ranges`.
    """

    bias: Tensor
    ranges: Tensor

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `AttentionMask.attend`."""
        return block_sparse_attention(query, key, value, self.bias, self.ranges)[0]


@dataclass(frozen=True)
class FlexMask:
    """A block-sparse mask for FlexAttention, which has a backward pass on CUDA only."""

    block_mask: BlockMask

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `AttentionMask.attend`.

        Raises:
            Mistake: gradients are wanted on a CPU.
        """
        if query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad:
            raise Mistake(
                "model.backbone.attention_backend is 'flex', which cannot train on a CPU; use 'auto' or 'sdpa'"
            )
        attention: Any = _compiled(flex_attention) if query.is_cuda else flex_attention
        grouped = query.shape[1] != key.shape[1]
        return attention(query, key, value, block_mask=self.block_mask, enable_gqa=grouped)


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # One compiled copy per process: FlexAttention is only fast compiled, and every layer shares its graph.
    return torch.compile(function)


def build_mask(layout: SequenceLayout, backend: AttentionBackend = "auto") -> AttentionMask:
    """The mask of a batch.

    Args:
        layout: the batch's documents and frames.
        backend: `flex`, `blocks`, `sdpa`, or `auto`: FlexAttention on CUDA, blocks on a CPU, SDPA with a dense mask
            elsewhere.

    Raises:
        Mistake: the backend is `blocks`, and the layout is not on a CPU.
    """
    on_cuda, on_cpu = layout.document_ids.is_cuda, layout.document_ids.is_cpu
    if backend == "blocks" and not on_cpu:
        raise Mistake(
            f"model.backbone.attention_backend is 'blocks', which runs on a CPU, but the model is on "
            f"'{layout.document_ids.device.type}'; use 'auto', 'flex' or 'sdpa'"
        )
    if backend == "flex" or (backend == "auto" and on_cuda):
        rows, length = layout.document_ids.shape
        # Uncompiled, the builder materialises every pair and can cost more than the attention it saves.
        create = _compiled(create_block_mask) if on_cuda else create_block_mask
        mask_mod = _mask_mod(layout.document_ids, layout.frame_ids, _branches(layout))
        return FlexMask(create(mask_mod, rows, None, length, length, device=layout.document_ids.device))
    tokens = _Tokens.of(layout)
    if backend == "blocks" or (backend == "auto" and on_cpu):
        ranges = key_ranges(tokens.document, tokens.frame)
        allowed = [tokens.allowed(*block).flatten() for block in block_slices(ranges)]
        return BlockSparseMask(_bias(torch.cat(allowed)), ranges)
    every = slice(None)
    return DenseMask(tokens.allowed(every, every, every)[:, None])


class _Tokens(NamedTuple):
    """(B, L) each. Padding is a document of its own at every position, and what is no frame a frame of its own."""

    document: Tensor
    frame: Tensor
    branch: Tensor
    place: Tensor

    @classmethod
    def of(cls, layout: SequenceLayout) -> _Tokens:
        document, frame = layout.document_ids, layout.frame_ids
        place = torch.arange(document.shape[1], dtype=document.dtype, device=document.device).expand_as(document)
        return cls(
            document.where(document >= 0, -1 - place), frame.where(frame >= 0, -1 - place), _branches(layout), place
        )

    def allowed(self, rows: slice, queries: slice, keys: slice) -> Tensor:
        """Truth values (rows, queries, keys)."""
        q, k = _Tokens(*(t[rows, queries, None] for t in self)), _Tokens(*(t[rows, None, keys] for t in self))
        followed = (k.branch == 0) | (k.branch == q.branch)
        return (k.document == q.document) & ((k.place <= q.place) | (k.frame == q.frame)) & followed


def _bias(allowed: Tensor) -> Tensor:
    bias = torch.zeros(allowed.shape).masked_fill_(~allowed, -torch.inf)
    torch._dynamo.maybe_mark_dynamic(bias, 0)  # of another length in every batch: to be compiled once for all of them
    return bias


def _branches(layout: SequenceLayout) -> Tensor:
    return torch.zeros_like(layout.document_ids) if layout.branch_ids is None else layout.branch_ids


def _mask_mod(document: Tensor, frame: Tensor, branch: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    def allowed(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same_document = (document[row, query] == document[row, key]) & (document[row, query] >= 0)
        same_frame = (frame[row, query] == frame[row, key]) & (frame[row, query] >= 0)
        followed = (branch[row, key] == 0) | (branch[row, query] == branch[row, key])
        return (same_document & ((key <= query) | same_frame) & followed) | (query == key)

    return allowed

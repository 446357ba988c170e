"""Who may attend to whom: text causally, a frame within itself in both directions, documents never to each other.

    allowed(q, k) = same document and (k <= q or same frame) and (k is of branch 0 or of the same branch)

Text is causal, and a frame sees all of itself (paper). Packed documents do not see each other (ours: the paper does not
say), nor do branches (ours, see `lit_mm.sequence.Document`). Padding attends to itself alone, which keeps its softmax
finite and its values out of everything else. A mask is built once per batch and used by every layer. `DenseMask` runs
anywhere and is the reference. `FlexMask` on a GPU and `BlockSparseMask` on a CPU skip blocks of pairs that hold
nothing, which is what makes packing cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lit_mm.backbone.block_sparse import block_slices, block_sparse_attention, key_ranges
from lit_mm.backbone.layout import SequenceLayout
from lit_mm.mistake import Mistake

AttentionBackend = Literal["auto", "sdpa", "flex", "blocks"]


class AttentionContext(Protocol):
    """What queries may attend to: a mask over the tokens of a batch, or also a cache of those before them."""

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
        """See `AttentionContext.attend`."""
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
        """See `AttentionContext.attend`."""
        return block_sparse_attention(query, key, value, self.bias, self.ranges)[0]


def build_mask(layout: SequenceLayout, backend: AttentionBackend = "auto") -> AttentionContext:
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
    tokens = _Tokens.of(layout)
    if backend == "flex" or (backend == "auto" and on_cuda):
        from lit_mm.backbone.flex import FlexMask

        rows, length = layout.document_ids.shape
        return FlexMask.build(tokens.mask_mod(), rows, length, layout.document_ids.device)
    if backend == "blocks" or (backend == "auto" and on_cpu):
        ranges = key_ranges(tokens.document, tokens.frame)
        allowed = [tokens.allowed(*block).flatten() for block in block_slices(ranges)]
        return BlockSparseMask(_bias(torch.cat(allowed)), ranges)
    every = slice(None)
    return DenseMask(tokens.allowed(every, every, every)[:, None])


class _Tokens(NamedTuple):
    """(B, L) each. Every padding token is a document of its own, and what is no frame a frame of its own.

    `offset` counts from the beginning of the row.
    """

    document: Tensor
    frame: Tensor
    branch: Tensor
    offset: Tensor

    @classmethod
    def of(cls, layout: SequenceLayout) -> _Tokens:
        document, frame, branch = layout.document_ids, layout.frame_ids, layout.branch_ids
        offset = torch.arange(document.shape[1], dtype=document.dtype, device=document.device).expand_as(document)
        return cls(
            document=document.where(document >= 0, -1 - offset),
            frame=frame.where(frame >= 0, -1 - offset),
            branch=torch.zeros_like(document) if branch is None else branch,
            offset=offset,
        )

    def may_attend_to(self, k: _Tokens) -> Tensor:
        """The one rule, for queries and keys of shapes that broadcast."""
        followed = (k.branch == 0) | (k.branch == self.branch)
        return (k.document == self.document) & ((k.offset <= self.offset) | (k.frame == self.frame)) & followed

    def allowed(self, rows: slice, queries: slice, keys: slice) -> Tensor:
        """Truth values (rows, queries, keys); slices are read where they lie, which indexing would copy."""
        q, k = _Tokens(*(t[rows, queries, None] for t in self)), _Tokens(*(t[rows, None, keys] for t in self))
        return q.may_attend_to(k)

    def mask_mod(self) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """The same for FlexAttention, a plain function of single numbers."""

        def allowed(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            q, k = _Tokens(*(t[row, query] for t in self)), _Tokens(*(t[row, key] for t in self))
            return q.may_attend_to(k)

        return allowed


def _bias(allowed: Tensor) -> Tensor:
    bias = torch.zeros(allowed.shape, dtype=torch.float32).masked_fill_(~allowed, -torch.inf)
    torch._dynamo.maybe_mark_dynamic(bias, 0)  # of another length in every batch: to be compiled once for all of them
    return bias

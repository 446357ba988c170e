"""Keys and values of what rows hold already, so that decoding computes only what is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lit_mm.backbone.layout import SequenceLayout

_GROWTH = 256  # positions by which the memory grows


class KeyValueCache:
    """Keys and values of all layers for rows of one document each, by position.

    What is written at a position replaces what was there, so a frame is denoised in place: every step writes its noisy
    tokens where its clean ones will stay. Memory grows in proportion to the longest row.

    Args:
        rows: number of rows.
        layers: of the transformer.
        kv_heads: key and value heads.
        head_dim: width of a head.
        device: where to keep it.
        dtype: of keys and values.
    """

    def __init__(
        self, rows: int, layers: int, kv_heads: int, head_dim: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        # The first slot takes what padding writes, so position p is at slot p + 1.
        self.memory = torch.zeros(layers, 2, rows, 1, kv_heads, head_dim, device=device, dtype=dtype)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.memory.shape[2]

    def reserve(self, length: int) -> None:
        """Make room for `length` positions a row."""
        layers, two, rows, slots, heads, dim = self.memory.shape
        if length + 1 > slots:
            more = -(-(length + 1 - slots) // _GROWTH) * _GROWTH
            self.memory = torch.cat([self.memory, self.memory.new_zeros(layers, two, rows, more, heads, dim)], 3)

    def masks(self, layout: SequenceLayout, rows: Sequence[int], longest: int) -> list[CachedMask]:
        """One mask for each layer, which also keeps the layer's new keys and values.

        Args:
            layout: of the new tokens (R, n); their positions count from the beginning of their row, padding is
                document -1. A frame is new as a whole.
            rows: R numbers, the cache's row of each of them.
            longest: positions that the longest of these rows holds, the new ones included.
        """
        self.reserve(longest)
        padding = layout.document_ids < 0
        slots = (layout.positions + 1).masked_fill(padding, 0)
        reach = _reach(layout).masked_fill(padding, -1) + 1
        index = torch.arange(longest + 1, device=slots.device)
        # Slot 0 is for padding alone: it must attend to something.
        allowed = (index <= reach[..., None]) & ((index > 0) | padding[..., None])
        # Rows side by side are read where they lie; any others are copied out by every layer.
        side_by_side = list(rows) == list(range(rows[0], rows[0] + len(rows)))
        memory = self.memory[:, :, rows[0] : rows[0] + len(rows)] if side_by_side else self.memory
        used = torch.tensor(range(len(rows)) if side_by_side else rows, device=slots.device)
        return [
            CachedMask(keys, values, used, not side_by_side, slots, longest + 1, allowed[:, None])
            for keys, values in memory
        ]


@dataclass(frozen=True)
class CachedMask:
    """Attends to all that a row holds and to what is new, and keeps the latter. See `masks.AttentionMask`.

    Attributes:
        keys: (rows, slots, kv_heads, head_dim) of one layer.
        values: likewise.
        rows: (R,) which of them are in use.
        apart: whether these are not simply all of them, in order.
        slots: (R, n) where the new tokens go.
        used: slots in use.
        allowed: (R, 1, n, used) bool.
    """

    keys: Tensor
    values: Tensor
    rows: Tensor
    apart: bool
    slots: Tensor
    used: int
    allowed: Tensor

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `AttentionMask.attend`; lengths of query and of key are those of the new tokens."""
        grouped = query.shape[1] != key.shape[1]
        kept_keys, kept_values = self._keep(self.keys, key), self._keep(self.values, value)
        return scaled_dot_product_attention(query, kept_keys, kept_values, attn_mask=self.allowed, enable_gqa=grouped)

    def _keep(self, memory: Tensor, new: Tensor) -> Tensor:
        memory[self.rows[:, None], self.slots] = new.transpose(1, 2).to(memory.dtype)
        held = memory[self.rows, : self.used] if self.apart else memory[:, : self.used]
        return held.transpose(1, 2).to(new.dtype)


def _reach(layout: SequenceLayout) -> Tensor:
    """(R, n) the last position that each token may attend to: its own, or the last one of its frame."""
    frames = layout.frame_ids
    same = (frames[:, :, None] == frames[:, None, :]) & (frames >= 0)[:, :, None]
    of_frame = torch.where(same, layout.positions[:, None, :], -1).amax(-1)
    return torch.maximum(of_frame, layout.positions)

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
        # One position more than was asked for: what padding writes goes behind the last.
        self.memory = torch.zeros(layers, 2, rows, 1, kv_heads, head_dim, device=device, dtype=dtype)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.memory.shape[2]

    def reserve(self, length: int) -> None:
        """Make room for `length` positions a row."""
        layers, two, rows, held, heads, dim = self.memory.shape
        if length + 1 > held:
            more = -(-(length + 1 - held) // _GROWTH) * _GROWTH
            self.memory = torch.cat([self.memory, self.memory.new_zeros(layers, two, rows, more, heads, dim)], 3)

    def contexts(self, layout: SequenceLayout, rows: Sequence[int], longest: int) -> list[CachedContext]:
        """What new tokens attend in, one for each layer.

        Args:
            layout: of the new tokens (R, n); their positions count from the beginning of their row, padding is
                document -1. A frame is new as a whole.
            rows: R numbers, the cache's row of each of them.
            longest: positions that the longest of these rows holds, the new ones included.
        """
        self.reserve(longest)
        padding = layout.document_ids < 0
        index = torch.arange(longest + 1, device=padding.device)
        allowed = torch.where(padding[..., None], index == longest, index <= _reach(layout)[..., None])
        positions = layout.positions.masked_fill(padding, longest)
        adjacent = list(rows) == list(range(rows[0], rows[0] + len(rows)))
        if adjacent:  # they are read where they lie; any others are copied out by every layer
            memory, used = (
                self.memory[:, :, rows[0] : rows[0] + len(rows)],
                torch.arange(len(rows), device=index.device),
            )
        else:
            memory, used = self.memory, torch.tensor(rows, device=index.device)
        return [
            CachedContext(keys, values, used, adjacent, positions, longest + 1, allowed[:, None])
            for keys, values in memory
        ]


@dataclass(frozen=True)
class CachedContext:
    """Keeps the keys and values of new tokens, and attends to all that their rows hold. See `masks.AttentionContext`.

    Attributes:
        keys: (rows, positions, kv_heads, head_dim) of one layer.
        values: likewise.
        rows: (R,) which of the rows are in use.
        adjacent: whether these are all of them, in order.
        positions: (R, n) of the new tokens.
        length: positions that are attended to, the last of which is for padding.
        allowed: (R, 1, n, length) bool.
    """

    keys: Tensor
    values: Tensor
    rows: Tensor
    adjacent: bool
    positions: Tensor
    length: int
    allowed: Tensor

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `AttentionContext.attend`; lengths of query and of key are those of the new tokens."""
        grouped = query.shape[1] != key.shape[1]
        keys, values = self._append(self.keys, key), self._append(self.values, value)
        return scaled_dot_product_attention(query, keys, values, attn_mask=self.allowed, enable_gqa=grouped)

    def _append(self, memory: Tensor, new: Tensor) -> Tensor:
        memory[self.rows[:, None], self.positions] = new.transpose(1, 2)
        held = memory[:, : self.length] if self.adjacent else memory[self.rows, : self.length]
        return held.transpose(1, 2)


def _reach(layout: SequenceLayout) -> Tensor:
    """(R, n) the last position that each token may attend to: its own, or the last one of its frame."""
    frames = layout.frame_ids
    same = (frames[:, :, None] == frames[:, None, :]) & (frames >= 0)[:, :, None]
    of_frame = torch.where(same, layout.positions[:, None, :], -1).amax(-1)
    return torch.maximum(of_frame, layout.positions)

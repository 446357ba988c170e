"""The least that a training step on text and frames can cost in PyTorch: no masks, no packing, no modalities."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention, silu


class PlainBlock(nn.Module):
    """Causal attention and SwiGLU, as any tutorial has them."""

    def __init__(self, dim: int, heads: int, hidden_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_forward_norm = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.gate_up, self.down = nn.Linear(dim, 2 * hidden_dim, bias=False), nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        heads = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.feed_forward_norm(x)).chunk(2, -1)
        return x + self.down(silu(gate) * up)


class PlainTransformer(nn.Module):
    """Text and one frame behind it: next token, and a regression on every visual token.

    Args:
        dim: model width.
        depth: number of blocks.
        heads: of attention; keys and values have as many.
        hidden_dim: inner width of the feed-forward.
        vocabulary: text ids.
        channels: of a visual token.
        length: positions in all, each with a learned vector.
    """

    def __init__(
        self, dim: int, depth: int, heads: int, hidden_dim: int, vocabulary: int, channels: int, length: int
    ) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(vocabulary, dim), nn.Parameter(torch.randn(length, dim) * 0.02)
        self.visual_input, self.visual_output = nn.Linear(channels, dim), nn.Linear(dim, channels)
        self.blocks = nn.ModuleList(PlainBlock(dim, heads, hidden_dim) for _ in range(depth))
        self.norm, self.text_head = nn.RMSNorm(dim), nn.Linear(dim, vocabulary, bias=False)

    def forward(self, text: Tensor, latents: Tensor) -> Tensor:
        """Loss of text ids (B, T) and the visual tokens (B, N, C) behind them."""
        x = torch.cat([self.embedding(text), self.visual_input(latents)], 1) + self.position
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        drawn, written = self.visual_output(x[:, text.shape[1] :]), self.text_head(x[:, : text.shape[1] - 1])
        return cross_entropy(written.flatten(0, 1), text[:, 1:].flatten()) + 3 * (drawn - latents).square().mean()

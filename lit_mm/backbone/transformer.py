"""The decoder-only transformer that reads and writes text and visual tokens alike (the paper's recipe)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lit_mm.backbone.balance import ExpertUse
from lit_mm.backbone.block import Block
from lit_mm.backbone.cache import KeyValueCache
from lit_mm.backbone.feed_forward import DenseFeedForward, FeedForward
from lit_mm.backbone.initialization import STD, init_linear
from lit_mm.backbone.layout import SequenceLayout
from lit_mm.backbone.masks import AttentionBackend, AttentionMask, build_mask
from lit_mm.backbone.rotary import Rotary
from lit_mm.mistake import Mistake


class BackboneOutput(NamedTuple):
    """What the backbone makes of a batch.

    Attributes:
        hidden: (B, L, D), normed: what the heads read; of some positions alone where they alone were wanted.
        expert_loss: () float32, weighted balance and z losses of all layers; 0 without experts.
    """

    hidden: Tensor
    expert_loss: Tensor


class Transformer(nn.Module):
    """Llama 3's architecture: pre-RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases.

    The defaults are the paper's backbone. With its text head it has 1.498 B parameters with
    `DenseFeedForward` and 2.304 B with `ModalityFeedForward`.

    Args:
        vocab_size: rows of the token embedding, which is not shared with the text head.
        dim: model width.
        depth: number of blocks.
        heads: query heads; the head width is `dim / heads`.
        kv_heads: key and value heads.
        feed_forward: makes one block's feed-forward layer from the width.
        rope_theta: base of the rotary angles; larger bases turn more slowly.
        norm_eps: added to the mean square in every norm.
        attention_backend: `flex` (FlexAttention, CUDA to train), `blocks` (CPU), `sdpa` (a dense mask), or `auto`:
            flex on CUDA, blocks on a CPU, sdpa elsewhere.
        embedding_std: standard deviation of token embeddings at the start. What blocks add soon drowns 0.02, above all
            with Muon, and with it what each digit of an action says.

    Raises:
        Mistake: heads do not divide the width evenly.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int = 2048,
        depth: int = 16,
        heads: int = 32,
        kv_heads: int = 8,
        feed_forward: Callable[[int], FeedForward] = DenseFeedForward,
        rope_theta: float = 500_000.0,
        norm_eps: float = 1e-5,
        attention_backend: AttentionBackend = "auto",
        embedding_std: float = STD,
    ) -> None:
        super().__init__()
        _check_heads(dim, heads, kv_heads)
        self.dim, self.head_dim = dim, dim // heads
        self.rope_theta = rope_theta
        self.attention_backend: AttentionBackend = attention_backend
        self.embedding_std = embedding_std
        self.embedding = nn.Embedding(vocab_size, dim)
        self.layers = nn.ModuleList(Block(dim, heads, kv_heads, feed_forward, norm_eps) for _ in range(depth))
        self.norm = nn.RMSNorm(dim, eps=norm_eps)
        self.load: Tensor | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fresh weights, also for a model built on the meta device and then given storage by `to_empty`.

        Everything starts from a truncated normal of deviation 0.02. The two matrices of each block that write to the
        residual stream are divided by `sqrt(2 * depth)`: the stream is a sum of 2 x depth such outputs, so its
        variance at the top stays what one output would give, whatever the depth (GPT-2; Llama 3 training codes do
        the same). Norms start at 1.
        """
        self.reset_embedding()
        for layer in self.layers:
            self.reset_block(layer)
        self.norm.reset_parameters()

    def reset_embedding(self) -> None:
        """Fresh weights for the token embedding."""
        init_linear(self.embedding.weight, self.embedding_std)

    def reset_block(self, block: nn.Module) -> None:
        """Fresh weights for one of the blocks."""
        block.reset_parameters(STD / math.sqrt(2 * max(1, len(self.layers))))  # type: ignore[operator]

    def embed(self, tokens: Tensor) -> Tensor:
        """Text ids (...,) to vectors (..., D)."""
        return self.embedding(tokens)

    def new_cache(self, rows: int) -> KeyValueCache:
        """Empty memory for decoding so many rows, where the model is and in its precision."""
        attention: Any = self.layers[0].attention
        weight = self.embedding.weight
        return KeyValueCache(
            rows, len(self.layers), attention.kv_heads, self.head_dim, device=weight.device, dtype=weight.dtype
        )

    def forward(
        self,
        x: Tensor,
        layout: SequenceLayout,
        masks: Sequence[AttentionMask] | None = None,
        wanted: Tensor | None = None,
    ) -> BackboneOutput:
        """Contextual vectors of a batch of packed rows.

        Args:
            x: (B, L, D), embedded text and visual tokens.
            layout: the documents, frames and positions of the same (B, L).
            masks: one for each layer; by default that of the layout for all. While decoding, those of a
                `KeyValueCache`, which also know what came before.
            wanted: (T,) numbers of positions among the B x L that alone are asked for. The last block then computes
                keys and values of all, and its feed-forward of these; the vectors are (1, T, D).

        In training, how experts are used is counted for `balance_experts`.
        """
        masks = masks or [build_mask(layout, self.attention_backend)] * len(self.layers)
        rotary = Rotary.from_positions(layout.positions, self.head_dim, self.rope_theta)
        routing = self.layers[0].feed_forward.plan(layout)  # type: ignore[union-attr, operator]
        uses: list[ExpertUse] = []
        for number, (layer, mask) in enumerate(zip(self.layers, masks, strict=True), start=1):
            if wanted is not None and number == len(self.layers):
                routing = layer.feed_forward.plan(layout.at(wanted))  # type: ignore[union-attr, operator]
                x, use = layer(x, rotary, mask, routing, wanted)
            else:
                x, use = layer(x, rotary, mask, routing)
            if use is not None:
                uses.append(use)
        if uses and self.training:
            load = torch.stack([use.tokens for use in uses])
            self.load = load if self.load is None else self.load + load
        return BackboneOutput(self.norm(x), sum((use.loss for use in uses), x.new_zeros((), dtype=torch.float32)))

    @torch.no_grad()
    def balance_experts(self) -> Tensor | None:
        """Move the routing biases by the load of all ranks since the last call; to be called after an optimizer step.

        Returns:
            (layers, 2, E) float32, the text and visual tokens that chose each expert; nothing without experts.
        """
        load, self.load = self.load, None
        if load is None:
            return None
        if dist.is_initialized():
            dist.all_reduce(load)
        for layer, of_layer in zip(self.layers, load, strict=True):
            layer.feed_forward.balance(of_layer.sum(0))  # type: ignore[union-attr, operator]
        return load


def _check_heads(dim: int, heads: int, kv_heads: int) -> None:
    if dim % heads or (dim // heads) % 2:
        raise Mistake(
            f"model.backbone.dim is {dim} with {heads} heads; rotary pairs need dim / heads to be a whole even number"
        )
    if heads % kv_heads:
        raise Mistake(
            f"model.backbone.kv_heads is {kv_heads}, which does not divide the {heads} heads; use a divisor of {heads}"
        )

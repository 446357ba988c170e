"""The decoder-only transformer that reads and writes text and visual tokens alike (paper)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lit_mm.backbone.attention import Attention
from lit_mm.backbone.balance import ExpertUse
from lit_mm.backbone.block import Block
from lit_mm.backbone.cache import KeyValueCache
from lit_mm.backbone.feed_forward import DenseFeedForward, FeedForward
from lit_mm.backbone.grouped import grouped_mm_waits
from lit_mm.backbone.initialization import STD, init_linear
from lit_mm.backbone.layers import RMSNorm
from lit_mm.backbone.layout import SequenceLayout
from lit_mm.backbone.masks import AttentionBackend, AttentionContext, build_mask
from lit_mm.backbone.modality import ModalityRMSNorm
from lit_mm.backbone.rotary import Rotary
from lit_mm.backbone.routing import Routing
from lit_mm.mistake import Mistake


class BackboneOutput(NamedTuple):
    """What the backbone makes of a batch.

    Attributes:
        hidden: (B, L, D), normed: what the heads read; (1, T, D) of the wanted tokens where some were wanted.
        expert_loss: () float32, weighted balance and z losses of all layers; 0 without experts.
        expert_tokens: (layers, KINDS, E) float32, how often tokens of each kind of `specialisation` chose each routed
            expert, without a gradient; None without experts.
    """

    hidden: Tensor
    expert_loss: Tensor
    expert_tokens: Tensor | None


class Transformer(nn.Module):
    """A decoder with pre-RMSNorm, rotary positions, grouped-query attention, SwiGLU and no biases.

    The defaults of width, depth, heads and feed-forward are the paper's (paper); norms, their epsilon and the rotary
    base are Llama 3's (ours: the paper does not say). With its text head it has 1.498 B parameters with
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
        qk_norm: norm queries and keys, each head by itself, before they are turned (arXiv 2608.05000; ours: the paper
            does not say).
        attention_by_modality: projections of the attention for text and others for visual tokens; shared in the paper.
        norms_by_modality: scales of all norms likewise.

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
        qk_norm: bool = False,
        attention_by_modality: bool = False,
        norms_by_modality: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes(dim, depth, heads, kv_heads)
        self.dim, self.head_dim, self.kv_heads = dim, dim // heads, kv_heads
        self.rope_theta = rope_theta
        self.attention_backend: AttentionBackend = attention_backend
        self.embedding_std = embedding_std
        norm = partial(ModalityRMSNorm if norms_by_modality else RMSNorm, eps=norm_eps)

        def block() -> Block:
            attention = Attention(dim, heads, kv_heads, attention_by_modality, norm if qk_norm else None)
            return Block(norm(dim), attention, norm(dim), feed_forward(dim))

        self.embedding = nn.Embedding(vocab_size, dim)
        self.layers = nn.ModuleList(block() for _ in range(depth))
        self.norm = norm(dim)
        self.reset_parameters()

    @property
    def blocks(self) -> Iterator[Block]:
        """The layers, as what they are."""
        return (cast(Block, layer) for layer in self.layers)

    def reset_parameters(self) -> None:
        """Fresh weights, also for a model built on the meta device and then given storage by `to_empty`.

        Everything starts from a truncated normal of deviation 0.02. The two matrices of each block that write to the
        residual stream are divided by `sqrt(2 * depth)`: the stream is a sum of 2 x depth such outputs, so its
        variance at the top stays what one output would give, whatever the depth (GPT-2; Llama 3 training codes do
        the same). Norms start at 1. (Ours: the paper does not say.)
        """
        self.reset_embedding()
        for block in self.blocks:
            self.reset_block(block)
        self.norm.reset_parameters()

    def reset_embedding(self) -> None:
        """Fresh weights for the token embedding."""
        init_linear(self.embedding.weight, self.embedding_std)

    def reset_block(self, block: Block) -> None:
        """Fresh weights for one of the blocks."""
        block.reset_parameters(STD / math.sqrt(2 * max(1, len(self.layers))))

    def embed(self, tokens: Tensor) -> Tensor:
        """Text ids (...,) to vectors (..., D)."""
        return self.embedding(tokens)

    def new_cache(self, rows: int, dtype: torch.dtype) -> KeyValueCache:
        """Empty memory for decoding so many rows, where the model is; `dtype` is what it computes in."""
        return KeyValueCache(rows, len(self.layers), self.kv_heads, self.head_dim, self.embedding.weight.device, dtype)

    def forward(
        self,
        x: Tensor,
        layout: SequenceLayout,
        contexts: Sequence[AttentionContext] | None = None,
        wanted: Tensor | None = None,
    ) -> BackboneOutput:
        """Contextual vectors of a batch of packed rows.

        Args:
            x: (B, L, D), embedded text and visual tokens, in the compute dtype.
            layout: the documents, frames and positions of the same (B, L).
            contexts: one for each layer; by default the mask of the layout for all. While decoding, those of a
                `KeyValueCache`, which also know what came before.
            wanted: (T,) numbers of tokens among the B x L that alone are asked for. The last block then computes keys
                and values of all, and its feed-forward of these.
        """
        contexts = contexts or [build_mask(layout, self.attention_backend)] * len(self.layers)
        rotary = Rotary.from_positions(layout.positions, self.head_dim, self.rope_theta)
        waits = grouped_mm_waits(x)
        routing = Routing.of(layout, waits)
        last = None if wanted is None else (wanted, Routing.of(layout.at(wanted), waits))
        uses: list[ExpertUse] = []
        for number, (block, context) in enumerate(zip(self.layers, contexts, strict=True), start=1):
            x, use = block(x, rotary, context, routing, last if number == len(self.layers) else None)
            uses += [] if use is None else [use]
        hidden = self.norm(x, routing if last is None else last[1])
        loss = sum((use.loss for use in uses), torch.zeros((), dtype=torch.float32, device=x.device))
        return BackboneOutput(hidden, loss, torch.stack([use.tokens for use in uses]) if uses else None)

    @torch.no_grad()
    def balance_experts(self, tokens: Tensor) -> Tensor:
        """Move the routing biases by the load of all ranks; to be called after an optimizer step.

        Args:
            tokens: (layers, KINDS, E), of this rank in the whole step, see `BackboneOutput`.

        Returns:
            The same of all ranks.
        """
        if dist.is_initialized():
            tokens = tokens.clone()
            dist.all_reduce(tokens)
        for block, of_layer in zip(self.blocks, tokens, strict=True):
            block.feed_forward.balance(of_layer.sum(0))
        return tokens


def _check_sizes(dim: int, depth: int, heads: int, kv_heads: int) -> None:
    for name, size in {"dim": dim, "depth": depth, "heads": heads, "kv_heads": kv_heads}.items():
        if size < 1:
            raise Mistake(f"model.backbone.{name} is {size}; use 1 or more")
    if dim % heads or (dim // heads) % 2:
        raise Mistake(
            f"model.backbone.dim is {dim} with {heads} heads; rotary pairs need dim / heads to be a whole even number"
        )
    if heads % kv_heads:
        raise Mistake(
            f"model.backbone.kv_heads is {kv_heads}, which does not divide the {heads} heads; use a divisor of {heads}"
        )

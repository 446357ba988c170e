"""The whole model as one plain module: text and visual tokens in, text losses (or logits) and velocities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from lit_mm.backbone.layout import SequenceLayout
from lit_mm.backbone.masks import AttentionContext
from lit_mm.backbone.specialisation import token_kinds
from lit_mm.backbone.transformer import BackboneOutput, Transformer
from lit_mm.model.heads import TextHead, VelocityHead, VisualInput, VisualTokens
from lit_mm.model.text_loss import TextLosses
from lit_mm.precision import without_autocast


class MultimodalTransformer(nn.Module):
    """Token embedding and visual input, one backbone, a text head and a velocity head (paper).

    Visual tokens pass one linear layer on the way in and one on the way out; there is no U-Net (paper). Packed rows
    become vectors by `hidden`; `text_loss`, `logits` and `velocity` read them where they are asked for.

    Args:
        backbone: the transformer with its token embedding.
        vocab_size: entries of the text head.
        channels: C, channels of a visual token.
        read_channels: of a visual token that is read, where those that are drawn are of another kind.
        places: tokens of a frame, each of which learns a vector for its place; none by default.
        compute_dtype: of activations and products, see `lit_mm.precision`.
    """

    def __init__(
        self,
        backbone: Transformer,
        vocab_size: int,
        channels: int,
        read_channels: int | None = None,
        places: int | None = None,
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.visual_input = VisualInput(channels, backbone.dim, read_channels=read_channels, places=places)
        self.text_head = TextHead(backbone.dim, vocab_size)
        self.velocity_head = VelocityHead(backbone.dim, channels)
        self.compute_dtype = compute_dtype

    @without_autocast
    def hidden(
        self,
        tokens: Tensor,
        layout: SequenceLayout,
        visual: VisualTokens | None = None,
        contexts: Sequence[AttentionContext] | None = None,
        wanted: Tensor | None = None,
    ) -> BackboneOutput:
        """Contextual vectors of packed rows.

        Args:
            tokens: (B, L) int64 text ids; the values at visual positions are not used.
            layout: documents, frames and positions of the rows.
            visual: what stands at the visual positions.
            contexts: see `Transformer.forward`.
            wanted: see `Transformer.forward`.
        """
        x = self.backbone.embed(tokens).to(self.compute_dtype)
        if visual is not None:
            vectors = self.visual_input(visual, self.compute_dtype).flatten(0, 1)
            x = x.flatten(0, 1).index_copy(0, visual.positions.flatten(), vectors).view_as(x)
            kinds = token_kinds(visual.positions, visual.drawn_frames, visual.timesteps, tokens.numel())
            layout = replace(layout, kinds=kinds.view_as(tokens))
        return self.backbone(x, layout, contexts, wanted)

    @without_autocast
    def text_loss(self, hidden: Tensor, targets: Tensor) -> TextLosses:
        """Losses of the next tokens (T,) int64, -100 where there is none, from vectors (T, D)."""
        return self.text_head(hidden, targets)

    @without_autocast
    def logits(self, hidden: Tensor) -> Tensor:
        """Of the next token, (..., vocabulary) from (..., D)."""
        return self.text_head.logits(hidden)

    @without_autocast
    def velocity(self, hidden: Tensor) -> Tensor:
        """The flow's prediction (F, N, C) float32, a velocity or clean tokens, from vectors (F, N, D)."""
        return self.velocity_head(hidden)


def at_positions(hidden: Tensor, positions: Tensor) -> Tensor:
    """Vectors (..., D) at some of the positions of rows (B, L, D), numbered among the B x L, none of them twice.

    Gradients then need no adding up, which plain indexing would prepare for.
    """
    chosen = hidden.flatten(0, 1).index_select(0, positions.flatten())
    return chosen.view(*positions.shape, hidden.shape[-1])

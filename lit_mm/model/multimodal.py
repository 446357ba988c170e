"""The whole model as one plain module: text and visual tokens in, text losses (or logits) and velocities out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from lit_mm.backbone.layout import SequenceLayout
from lit_mm.backbone.masks import AttentionMask
from lit_mm.backbone.transformer import Transformer
from lit_mm.model.heads import TextHead, VelocityHead, VisualInput


class ModelOutput(NamedTuple):
    """What the two heads say.

    Attributes:
        text: (T,) float32 loss of each wanted text position where targets were given, without a gradient; else
            (T, vocabulary) logits.
        text_sum: () float32 sum of those losses, for the backward pass; None with logits.
        visual: (F', N, C) prediction for each wanted frame, in the model's own parameterisation (x or v).
        expert_loss: () float32, weighted balance and z losses of the experts; 0 without any.
    """

    text: Tensor
    text_sum: Tensor | None
    visual: Tensor
    expert_loss: Tensor


class MultimodalTransformer(nn.Module):
    """Token embedding and visual input, one backbone, a text head and a velocity head (the paper's recipe).

    Visual tokens pass one linear layer on the way in and one on the way out; there is no U-Net.

    Args:
        backbone: the transformer with its token embedding.
        vocab_size: entries of the text head.
        channels: C, channels of a visual token.
        read_channels: of a visual token that is read, where those that are drawn are of another kind.
        places: tokens of a frame, each of which learns a vector for its place; none by default.
    """

    def __init__(
        self,
        backbone: Transformer,
        vocab_size: int,
        channels: int,
        read_channels: int | None = None,
        places: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.visual_input = VisualInput(channels, backbone.dim, read_channels=read_channels, places=places)
        self.text_head = TextHead(backbone.dim, vocab_size)
        self.velocity_head = VelocityHead(backbone.dim, channels)

    def forward(
        self,
        tokens: Tensor,
        layout: SequenceLayout,
        latents: Tensor,
        timesteps: Tensor,
        visual_positions: Tensor,
        text_positions: Tensor,
        drawn_frames: Tensor,
        targets: Tensor | None = None,
        read: Tensor | None = None,
        masks: Sequence[AttentionMask] | None = None,
    ) -> ModelOutput:
        """Run packed rows through the model.

        Args:
            tokens: (B, L) int64 text ids; the values at visual positions are not used.
            layout: documents, frames and positions of the rows.
            latents: (F, N, C) visual tokens, clean ones and noised ones.
            timesteps: (F,) in [0, 1]; 1 is clean.
            visual_positions: (F, N) flattened index of every visual token.
            text_positions: (T,) flattened index of every position the text head is asked at.
            drawn_frames: (F',) indices of the frames the velocity head is asked about; all others are read.
            targets: (T,) next token of each text position.
            read: (F, N, C') tokens of the frames as they are read, where that is another kind than `latents`.
            masks: see `Transformer.forward`.
        """
        x = self.backbone.embed(tokens)
        visual = self.visual_input(latents, timesteps, read, drawn_frames).to(x.dtype)
        flat = x.flatten(0, 1).index_copy(0, visual_positions.flatten(), visual.flatten(0, 1))
        # What is only read, while decoding, is asked for the next token alone.
        wanted = text_positions if masks is not None and not len(drawn_frames) else None
        hidden, expert_loss = self.backbone(flat.view_as(x), layout, masks, wanted)
        hidden = hidden.flatten(0, 1)
        # Every position is asked for once, so gradients need no adding up, which plain indexing would prepare for.
        where = visual_positions[drawn_frames]
        drawn = hidden.index_select(0, where.flatten()).view(*where.shape, self.backbone.dim)
        text = self.text_head(hidden if wanted is not None else hidden.index_select(0, text_positions), targets)
        losses, total = (text, None) if targets is None else text
        return ModelOutput(
            text=losses,
            text_sum=total,
            visual=self.velocity_head(drawn),
            expert_loss=expert_loss,
        )

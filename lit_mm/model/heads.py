"""What turns vectors into predictions, and visual tokens into vectors: the model's outer, single-layer parts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_mm.backbone.initialization import init_linear
from lit_mm.backbone.layers import Linear
from lit_mm.model.text_loss import TextLosses, text_losses

PLACE_STD = 0.2  # like clean visual tokens behind their linear layer: at t = 0 the place is nearly all there is to see


@dataclass(frozen=True)
class VisualTokens:
    """The visual tokens of a batch, as the network is shown them.

    Attributes:
        latents: (F, N, C), clean or noised, see `FlowMatching.network_input`.
        timesteps: (F,) float32 in [0, 1], 0 noise, 1 data.
        positions: (F, N) int64, index of every token among the B x L positions of the rows.
        drawn_frames: (F',) int64, frames that are drawn; all others are read.
        read: (F, N, C') tokens of another kind, which stand for all frames but the drawn ones.
    """

    latents: Tensor
    timesteps: Tensor
    positions: Tensor
    drawn_frames: Tensor
    read: Tensor | None = None


class TextHead(nn.Module):
    """Next-token prediction: a linear layer to the vocabulary, not shared with the token embedding.

    Args:
        dim: model width.
        vocab_size: number of token ids.
    """

    def __init__(self, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.linear = Linear(dim, vocab_size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal of deviation 0.02: logits start near zero, the loss near log(vocab_size)."""
        init_linear(self.linear.weight)

    def forward(self, hidden: Tensor, targets: Tensor) -> TextLosses:
        """Of (T, D) and the next tokens (T,) int64, -100 where there is nothing to predict; see `text_losses`."""
        return text_losses(hidden, self.linear.weight, targets)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., vocab_size)."""
        return self.linear(hidden)


class VisualInput(nn.Module):
    """Visual tokens to model width, with the time of their frame added.

    One linear layer in (paper), and a sinusoidal embedding of t through a two-layer perceptron, added to every token of
    the frame (ours: the paper does not say; its parameter count leaves no room for modulation per layer).
    Frames that are read through another encoder than those that are drawn have a linear layer of their own.

    Rotary positions count along the document, so a token sees how far away others are, but not at which place of its
    frame it stands, and the same place of the last frame is at another distance with every text between them. `places`
    says it outright, as BAGEL does (arXiv 2505.14683); the paper does not mention any such embedding.

    Args:
        channels: channels of a visual token.
        dim: model width.
        time_features: number of sines and cosines of t.
        read_channels: channels of a token that is read, where it is of another kind.
        places: tokens of a frame, each of which gets a learned vector; none by default.
    """

    def __init__(
        self,
        channels: int,
        dim: int,
        time_features: int = 256,
        read_channels: int | None = None,
        places: int | None = None,
    ) -> None:
        super().__init__()
        self.time_features = time_features
        self.place = None if places is None else nn.Parameter(torch.empty(places, dim))
        self.linear = Linear(channels, dim, bias=False)
        self.read_linear = None if read_channels is None else Linear(read_channels, dim, bias=False)
        self.time = nn.Sequential(Linear(time_features, dim), nn.SiLU(), Linear(dim, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normals of deviation 0.02, 0.2 for places; biases 0."""
        init_linear(self.linear.weight)
        if self.place is not None:
            init_linear(self.place, PLACE_STD)
        if self.read_linear is not None:
            init_linear(self.read_linear.weight)
        for layer in self.time:
            if isinstance(layer, nn.Linear):
                init_linear(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, visual: VisualTokens, dtype: torch.dtype) -> Tensor:
        """Vectors (F, N, D) for the backbone, in `dtype`."""
        if visual.read is None or self.read_linear is None:
            tokens = self.linear(visual.latents.to(dtype))
        else:
            drawn = self.linear(visual.latents[visual.drawn_frames].to(dtype))
            tokens = self.read_linear(visual.read.to(dtype)).index_copy(0, visual.drawn_frames, drawn)
        if self.place is not None:
            tokens = tokens + self.place.to(dtype)
        features = sinusoidal_embedding(visual.timesteps, self.time_features)
        return tokens + self.time(features.to(dtype))[:, None]


def sinusoidal_embedding(timesteps: Tensor, features: int) -> Tensor:
    """Cosines and sines of `1000 t` at frequencies from 1 down to 1 / 10,000 (Nichol & Dhariwal 2021, as in DiT).

    In float32 whatever the precision of the run: in bfloat16 the angles would be wrong by whole turns.

    Args:
        timesteps: (F,) in [0, 1].
        features: number of features, even.

    Returns:
        (F, features) float32.
    """
    half = features // 2
    exponent = torch.arange(half, device=timesteps.device, dtype=torch.float32) / half
    angles = 1000.0 * timesteps.float()[:, None] * torch.exp(-math.log(10_000.0) * exponent)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class VelocityHead(nn.Module):
    """Vectors to the flow's prediction (velocity or clean tokens): one linear layer (paper).

    Args:
        dim: model width.
        channels: channels of a visual token.
    """

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.linear = Linear(dim, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zeros: the first prediction is the mean over data and noise, so the loss starts at their variance and the
        random backbone is not pushed about by a random output (as in DiT and RAE). The head learns at once, the
        backbone from the second step on.
        """
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(F, N, D) to (F, N, C) float32."""
        return self.linear(hidden).float()

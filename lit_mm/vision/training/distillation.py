"""Further targets for an encoder that learns from captions, so that every single token says what is at its place."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mm.frozen import freeze
from lit_mm.vision.training.siglip import Siglip


class MaskedDistillation(nn.Module):
    """A student that sees part of a picture predicts the patch tokens of a teacher that sees all of it.

    The teacher is an exponential moving average of the student (data2vec, arXiv 2202.03555; SILC, arXiv 2310.13355;
    the masked prediction of SigLIP 2, arXiv 2502.14786). Here tokens are regressed; there are no prototypes.

    Args:
        siglip: the student.
        mask_ratio: share of patches that the student does not see.
        decay: share of the teacher that a step keeps.
    """

    def __init__(self, siglip: Siglip, mask_ratio: float = 0.5, decay: float = 0.996) -> None:
        super().__init__()
        self.mask_ratio, self.decay = mask_ratio, decay
        self.teacher = freeze(copy.deepcopy(siglip.vision))
        vision = cast(Any, siglip.vision)
        self.patch: int = vision.patch_embed.patch_size[0]
        self.prefix: int = vision.num_prefix_tokens
        width = int(vision.embed_dim)
        # As the first layer is linear, learning the pixels of a hidden patch is learning its embedding.
        self.mask_patch = nn.Parameter(torch.zeros(3, self.patch, self.patch))
        self.predictor = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, siglip: Siglip, images: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the hidden patches' tokens; `images` (P, 3, size, size) are normalised."""
        grid = images.shape[-1] // self.patch
        hidden = torch.rand(len(images), grid**2, device=images.device, generator=generator).argsort(1)
        hidden = hidden < round(self.mask_ratio * grid**2)
        with torch.no_grad():
            wanted = cast(Any, self.teacher).forward_features(images)[:, self.prefix :]
        seen = self.predictor(siglip.tokens(self._covered(images, hidden, grid))[:, self.prefix :])
        return F.mse_loss(seen[hidden], wanted[hidden])

    def _covered(self, images: Tensor, hidden: Tensor, grid: int) -> Tensor:
        where = hidden.view(-1, 1, grid, grid).repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        return torch.where(where, self.mask_patch.repeat(1, grid, grid), images)

    @torch.no_grad()
    def update(self, siglip: Siglip) -> None:
        """Move the teacher towards the student: decay * teacher + (1 - decay) * student."""
        for mine, its in zip(self.teacher.parameters(), siglip.vision.parameters(), strict=True):
            mine.lerp_(its, 1 - self.decay)


class PixelReconstruction(nn.Module):
    """A linear layer that reads every patch's pixels from its token.

    Captions say little about exact shapes and colours; this keeps in the tokens what a decoder needs to draw them.
    """

    def __init__(self, siglip: Siglip) -> None:
        super().__init__()
        vision = cast(Any, siglip.vision)
        self.patch: int = vision.patch_embed.patch_size[0]
        self.prefix: int = vision.num_prefix_tokens
        self.head = nn.Linear(int(vision.embed_dim), 3 * self.patch**2)

    def forward(self, tokens: Tensor, images: Tensor) -> Tensor:
        """Mean squared error of pixels in normalised units.

        Args:
            tokens: (P, N, C) of `Siglip.tokens`.
            images: (P, 3, size, size), the normalised pictures they were made of.
        """
        patches = F.unfold(images, self.patch, stride=self.patch).transpose(1, 2)
        return F.mse_loss(self.head(tokens[:, self.prefix :]), patches)

"""Loss centering: both losses are scaled to one moving target, so that neither outweighs the other.

(Paper, appendix D.2, an ablation and not its default.)

    c = alpha * L_flow + (1 - alpha) * L_text
    target = mu * target + (1 - mu) * c
    weights: target / L_flow and target / L_text
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

from lit_mm.mistake import Mistake


def fixed_weights(text_weight: float, flow_weight: float) -> tuple[float, float]:
    """The weights of the two losses as they are given.

    Raises:
        Mistake: one is negative or not finite, so that the loss would be raised, or lost.
    """
    for name, weight in {"text_weight": text_weight, "flow_weight": flow_weight}.items():
        if not 0 <= weight < math.inf:
            raise Mistake(f"model.{name} is {weight}; use 0 or more")
    return text_weight, flow_weight


class LossCentering:
    """Weights of the two losses, without a gradient.

    Args:
        alpha: share of the flow loss in the target, in [0, 1]. The paper's value is not known; one half is ours.
        mu: how much of the target stays at each batch, in [0, 1). The paper's value is not known; 0.99 is ours.

    Raises:
        Mistake: a value is out of its range.
    """

    def __init__(self, alpha: float = 0.5, mu: float = 0.99) -> None:
        if not 0 <= alpha <= 1:
            raise Mistake(f"model.loss_centering.alpha is {alpha}; it has to be from 0 to 1")
        if not 0 <= mu < 1:
            raise Mistake(f"model.loss_centering.mu is {mu}; it has to be at least 0 and below 1")
        self.alpha, self.mu = alpha, mu
        self.target = torch.tensor(torch.nan)  # until there is a batch

    @torch.no_grad()
    def __call__(self, text: Tensor, flow: Tensor, world_size: int = 1) -> tuple[Tensor, Tensor]:
        """Weights () of the text loss and of the flow loss, the same on all ranks.

        The first batch gives the target (ours). A batch that has only one of the losses, or none that is finite, leaves
        the target as it is; a loss that is 0 because there is nothing of its kind has the weight 1 (ours).

        Args:
            text: () mean loss; the mean of this over ranks is that of all tokens, see `global_means`.
            flow: likewise.
            world_size: number of ranks.
        """
        losses = torch.stack([text, flow]).float()
        if world_size > 1:
            dist.all_reduce(losses)
            losses = losses / world_size
        centre = (1 - self.alpha) * losses[0] + self.alpha * losses[1]
        target = self.target.to(losses.device)
        moved = torch.where(target.isnan(), centre, self.mu * target + (1 - self.mu) * centre)
        self.target = torch.where((losses > 0).all() & centre.isfinite(), moved, target)
        weights = torch.where((losses > 0) & ~self.target.isnan(), self.target / losses, 1.0)
        return weights[0], weights[1]

    def state_dict(self) -> dict[str, Tensor]:
        """The target."""
        return {"target": self.target.cpu()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a saved target."""
        self.target = state["target"]

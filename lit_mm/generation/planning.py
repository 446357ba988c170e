"""Planning with imagination: which actions lead to a goal picture (Navigation World Models, arXiv 2412.03572).

The cross-entropy method draws ways to act from a Gaussian, imagines each, keeps those whose last frame is closest to
the goal, and fits the Gaussian to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.roll_out import RollOut, roll_out
from lit_mm.mistake import Mistake

# Writes the text of one step from dx, dy and dyaw: `data_modules.reading.actions.format_action` with rel_t given, say.
WriteAction = Callable[[float, float, float], str]


@dataclass(frozen=True)
class CrossEntropyMethod:
    """How a plan is searched for; the defaults are the protocol of Navigation World Models.

    A way to act is three numbers: dx and dy of every step, and the turn dyaw of the last one, in the units of the
    action texts.

    Args:
        mean: of the first Gaussian.
        std: its deviations.
        samples: ways drawn in each iteration.
        elites: how many of them the Gaussian is fitted to.
        iterations: rounds of drawing and fitting.
        steps: of every way.

    Raises:
        Mistake: the numbers cannot hold.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    samples: int = 120
    elites: int = 5
    iterations: int = 1
    steps: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.elites <= self.samples or self.iterations < 1 or self.steps < 1:
            raise Mistake(
                f"samples, elites, iterations, steps are {self.samples}, {self.elites}, {self.iterations}, "
                f"{self.steps}; each has to be at least 1, and elites at most samples"
            )

    def search(self, cost: Callable[[Tensor], Tensor], generator: torch.Generator) -> Tensor:
        """The mean of the last elites (3,).

        Args:
            cost: of ways (samples, 3): (samples,), smaller being better.
            generator: draws the ways.
        """
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        for _ in range(self.iterations):
            ways = mean + std * torch.randn(self.samples, 3, generator=generator)
            best = cost(ways).topk(self.elites, largest=False).indices
            mean, std = ways[best].mean(0), ways[best].std(0, correction=0)
        return mean

    def deltas(self, way: Tensor) -> list[tuple[float, float, float]]:
        """dx, dy, dyaw of every step of a way (3,)."""
        dx, dy, dyaw = (float(number) for number in way)
        return [(dx, dy, 0.0)] * (self.steps - 1) + [(dx, dy, dyaw)]


class Plan(NamedTuple):
    """What to do: the way (3,), and dx, dy, dyaw of every step."""

    way: Tensor
    deltas: list[tuple[float, float, float]]


@torch.no_grad()
def plan(
    decoder: Decoder,
    context: Tensor,
    goal: Tensor,
    method: CrossEntropyMethod,
    write_action: WriteAction,
    distance: Callable[[Tensor, Tensor], Tensor],
    seed: int = 0,
    sampler: FlowSampler | None = None,
) -> Plan:
    """Search for a way from the last of some frames to a goal.

    Args:
        decoder: the model that imagines.
        context: (n, 3, image_size, image_size) uint8, oldest first.
        goal: (3, image_size, image_size) uint8.
        method: how to search.
        write_action: the text of a step.
        distance: of pictures (F, 3, image_size, image_size) uint8 to as many goals, (F,).
        seed: of the ways and of all noise, which is the same for all ways.
        sampler: of the frames; the decoder's own by default.
    """

    def cost(ways: Tensor) -> Tensor:
        asked = [
            RollOut(context, [write_action(*delta) for delta in method.deltas(way)], seed, sampler) for way in ways
        ]
        last = torch.stack([frames[-1] for frames in roll_out(decoder, asked)])
        return distance(decoder.decode(last), goal.expand(len(ways), *goal.shape)).cpu()

    way = method.search(cost, torch.Generator().manual_seed(seed))
    return Plan(way, method.deltas(way))


def trajectory_errors(reached: Tensor, true: Tensor) -> tuple[float, float]:
    """Absolute and relative error of a trajectory, as Navigation World Models takes them from `evo`.

    ATE is the root mean square distance of positions; RPE that of the steps from one pose to the next, each as seen
    from the pose it starts at. Nothing is aligned or scaled: both begin at the same pose.

    Args:
        reached: (steps + 1, 3), x, y and heading in radians.
        true: the same of the trajectory that led to the goal.

    Returns:
        ATE and RPE, in the unit of x and y.
    """
    absolute = (reached[:, :2] - true[:, :2]).square().sum(1).mean().sqrt()
    relative = (_steps(reached) - _steps(true)).square().sum(1).mean().sqrt()
    return float(absolute), float(relative)


def _steps(poses: Tensor) -> Tensor:
    moved = poses[1:, :2] - poses[:-1, :2]
    cos, sin = poses[:-1, 2].cos(), poses[:-1, 2].sin()
    return torch.stack([cos * moved[:, 0] + sin * moved[:, 1], cos * moved[:, 1] - sin * moved[:, 0]], 1)

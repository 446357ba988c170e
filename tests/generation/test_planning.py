from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from data_modules.reading.actions import format_action
from lit_mm.generation import planning
from lit_mm.generation.planning import CrossEntropyMethod, plan, trajectory_errors
from lit_mm.generation.roll_out import RollOut


def test_the_search_finds_the_minimum_of_a_bowl() -> None:
    method = CrossEntropyMethod((0.0, 0.0, 0.0), (2.0, 2.0, 2.0), samples=200, elites=10, iterations=12)
    wanted = torch.tensor([1.5, -0.5, 0.7])
    found = method.search(lambda ways: (ways - wanted).square().sum(1), torch.Generator().manual_seed(0))
    assert found.tolist() == pytest.approx(wanted.tolist(), abs=0.02)


def test_one_iteration_is_the_mean_of_the_best_draws() -> None:
    method = CrossEntropyMethod((1.0, 0.0, 0.0), (0.5, 0.1, 0.2), samples=30, elites=4)
    drawn: list[Tensor] = []

    def cost(ways: Tensor) -> Tensor:
        drawn.append(ways)
        return ways[:, 0].abs()

    found = method.search(cost, torch.Generator().manual_seed(3))
    best = sorted(drawn[0].tolist(), key=lambda way: abs(way[0]))[:4]
    assert len(drawn) == 1
    assert drawn[0].shape == (30, 3)
    assert found.tolist() == pytest.approx([sum(way[i] for way in best) / 4 for i in range(3)], abs=1e-6)


def test_a_way_repeats_its_step_and_turns_at_the_end() -> None:
    method = CrossEntropyMethod((0, 0, 0), (1, 1, 1), steps=3)
    assert method.deltas(torch.tensor([1.0, -0.5, 0.25])) == [(1, -0.5, 0), (1, -0.5, 0), (1, -0.5, 0.25)]


@pytest.mark.parametrize("wrong", [{"elites": 0}, {"elites": 121}, {"iterations": 0}, {"steps": 0}])
def test_numbers_that_cannot_hold(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="elites"):
        CrossEntropyMethod((0, 0, 0), (1, 1, 1), **wrong)


class Drawn:
    """Latents are pictures already."""

    def decode(self, latents: Tensor) -> Tensor:
        return latents


def test_a_plan_leads_to_the_goal_in_a_world_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame's three channels are where one stands: dx, dy and dyaw added up, read back from the texts."""

    def roll(decoder: Any, asked: list[RollOut]) -> list[Tensor]:
        walks = []
        for one in asked:
            texts = [action.removeprefix("action: ").split(", ")[:3] for action in one.actions]
            steps = torch.tensor([[float(field.split("=")[1]) for field in text] for text in texts])
            walks.append(steps.cumsum(0)[:, :, None, None])
        return walks

    monkeypatch.setattr(planning, "roll_out", roll)
    method = CrossEntropyMethod((0, 0, 0), (1, 1, 1), samples=100, elites=8, iterations=10, steps=4)
    goal = torch.tensor([3.2, -1.2, 0.5])[:, None, None]
    found = plan(
        Drawn(),  # type: ignore[arg-type]
        torch.zeros(4, 3, 1, 1, dtype=torch.uint8),
        goal,
        method,
        lambda dx, dy, dyaw: format_action(dx, dy, dyaw, 0.25),
        lambda pictures, goals: (pictures - goals).square().flatten(1).sum(1),
        seed=1,
    )
    assert found.way.tolist() == pytest.approx([0.8, -0.3, 0.5], abs=0.03)
    assert found.deltas == method.deltas(found.way)


def matrix(pose: Tensor) -> Tensor:
    x, y, angle = pose.tolist()
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin, x], [sin, cos, y], [0, 0, 1]], dtype=torch.float64)


def test_errors_are_those_of_rigid_motions() -> None:
    """RPE as `evo` defines it: the translation of (Q_i^-1 Q_i+1)^-1 (P_i^-1 P_i+1)."""
    random = torch.Generator().manual_seed(0)
    reached, true = torch.randn(2, 6, 3, generator=random, dtype=torch.float64)
    relative = []
    for i in range(5):
        q = torch.linalg.inv(matrix(true[i])) @ matrix(true[i + 1])
        p = torch.linalg.inv(matrix(reached[i])) @ matrix(reached[i + 1])
        relative.append(float((torch.linalg.inv(q) @ p)[:2, 2].square().sum()))
    absolute = [float((reached[i, :2] - true[i, :2]).square().sum()) for i in range(6)]
    expected = math.sqrt(sum(absolute) / 6), math.sqrt(sum(relative) / 5)
    assert trajectory_errors(reached, true) == pytest.approx(expected)
    assert trajectory_errors(true, true) == pytest.approx((0, 0), abs=1e-9)

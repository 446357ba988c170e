"""Plans made in the model's imagination, carried out in the simulator (paper §5; Navigation World Models)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.evaluation.final_evaluation import FinalEvaluation, unused
from data_modules.action_video import ActionVideoDataset
from data_modules.dataset import DocumentDataset
from data_modules.game.simulator import Case, Simulator, View, held_out
from data_modules.reading.actions import Pose, format_action
from lit_mm.flow.sampler import FlowSampler
from lit_mm.frozen import freeze
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.planning import CrossEntropyMethod, Plan, plan, trajectory_errors
from lit_mm.training.run_folder import run_folder
from lit_mm.vision.metrics.features import EfficientNetLite0, FeatureNetwork

Deltas = Sequence[tuple[float, float, float]]


class PlanningEvaluation(FinalEvaluation):
    """Shows the model where a player got to, and asks it for a way there.

    The goal is the last frame of a scripted player's walk on a map that was not trained on. A plan is searched for with
    the cross-entropy method, carried out in the simulator, and its trajectory compared with the player's: `ate` and
    `rpe` in map units (see `trajectory_errors`), the mean over cases and `repeats`, as `val/<source>/planning_…`.
    Beside it stand `…_random`, a way drawn from the first Gaussian, `…_straight`, its mean without the turn, and
    `…_still`, staying where one is. All cases are in `planning/step_*.json` of the run folder.

    See `FinalEvaluation` for when it runs.

    Args:
        method: how a plan is searched for.
        maps: of Freedoom 2, none of which may be trained on.
        cases: per map.
        repeats: searches from different seeds, whose errors are averaged; NWM makes three.
        sampler: of the frames; the model's own by default.
        network: of the distance to the goal; EfficientNet-Lite0 by default, where NWM has LPIPS.
        gamma: brightens the game, as in the recipe of the training data.
        seed: of cases, searches and noise.
    """

    def __init__(
        self,
        method: CrossEntropyMethod,
        maps: tuple[str, ...] = ("map05", "map11", "map14", "map17"),
        cases: int = 4,
        repeats: int = 3,
        sampler: FlowSampler | None = None,
        network: FeatureNetwork | None = None,
        gamma: float = 1.5,
        seed: int = 0,
    ) -> None:
        self.method, self.maps, self.cases, self.repeats = method, maps, cases, repeats
        self.sampler, self.network, self.gamma, self.seed = sampler, network, gamma, seed

    def evaluate(self, trainer: Trainer, module: Any, source: str, dataset: DocumentDataset) -> dict[str, float]:
        """See `FinalEvaluation.evaluate`."""
        if not isinstance(dataset, ActionVideoDataset):
            return {}
        decoder: Decoder = module.decoder()
        data = trainer.datamodule.mixture.sources[source]  # type: ignore[attr-defined]
        self.network = freeze(self.network or EfficientNetLite0()).to(decoder.device)
        records: list[dict[str, Any]] = []
        for simulator in held_out(self.maps, data, decoder.vision.image_size, self.gamma, self.seed):
            for number in range(self.cases):
                case = simulator.case(number, self.method.steps)
                records.append(
                    {"level": simulator.level, "case": number} | self._case(decoder, simulator, case, number)
                )
        names = [name for name in records[0] if name.startswith(("ate", "rpe"))]
        values = {name: sum(record[name] for record in records) / len(records) for name in names}
        run = run_folder(trainer)
        if trainer.is_global_zero and run:
            folder = run / "planning"
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"mean": values, "cases": records}, indent=1) + "\n"
            unused(folder / f"step_{trainer.global_step:07d}.json").write_text(text, encoding="utf-8")
        return {f"planning_{name}": value for name, value in values.items()}

    def _case(self, decoder: Decoder, simulator: Simulator, case: Case, number: int) -> dict[str, Any]:
        """Errors of all ways to act, and the ways that were planned."""
        record: dict[str, Any] = {"ways": []}
        straight = self.method.deltas(torch.tensor([self.method.mean[0], self.method.mean[1], 0.0]))
        still: Deltas = [(0.0, 0.0, 0.0)] * self.method.steps
        ways: dict[str, list[Deltas]] = {"": [], "_random": [], "_straight": [straight], "_still": [still]}
        for repeat in range(self.repeats):
            seed = self.seed + 1000 * number + repeat
            planned = self._plan(decoder, simulator.view, case, seed)
            record["ways"].append(planned.way.tolist())
            ways[""].append(planned.deltas)
            noise = torch.randn(3, generator=torch.Generator().manual_seed(seed))
            ways["_random"].append(
                self.method.deltas(torch.tensor(self.method.mean) + torch.tensor(self.method.std) * noise)
            )
        true = _poses(case.walks["wander"].poses)
        for name, all_deltas in ways.items():
            walks = [simulator.follow(case.beginning, deltas) for deltas in all_deltas]
            errors = torch.tensor([trajectory_errors(_poses(walk.poses), true) for walk in walks])
            record[f"ate{name}"], record[f"rpe{name}"] = errors.mean(0).tolist()
        return record

    def _plan(self, decoder: Decoder, view: View, case: Case, seed: int) -> Plan:
        def write(dx: float, dy: float, dyaw: float) -> str:
            return format_action(dx, dy, dyaw, 1 / view.horizon)

        goal = case.walks["wander"].frames[-1]
        return plan(decoder, case.context, goal, self.method, write, self._distance, seed, self.sampler)

    def _distance(self, pictures: Tensor, goals: Tensor) -> Tensor:
        assert self.network is not None
        goal = self.network(goals[:1].to(pictures.device) / 255)  # all goals are the same
        return self.network.distance(
            self.network(pictures / 255), [features.expand(len(pictures), -1, -1, -1) for features in goal]
        )


def _poses(poses: Sequence[Pose]) -> Tensor:
    """(steps + 1, 3), x and y in map units, heading in radians."""
    return torch.tensor([[pose.x, pose.y, math.radians(pose.angle)] for pose in poses], dtype=torch.float64)

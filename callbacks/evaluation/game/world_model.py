"""Imagined walks through the game, held against the simulator (paper §5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.evaluation.roll_outs import Horizon, RollOuts, Walked
from data_modules.action_video import ActionVideoDataset
from data_modules.game.simulator import MOVES, TURNS, Case, held_out
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.imagined import Judge, action_fidelity
from lit_mm.mistake import Mistake
from lit_mm.vision.metrics.features import FeatureNetwork

KEYS = (*TURNS, *MOVES)
CLASSES = {"turns": [0, 1], "moves": [2, 3, 4, 5]}
_DIFFERENT = 16.0, 5.0  # map units or degrees from which two ways to go on have led to different places


class WorldModelEvaluation(RollOuts):
    """Rolls the model out on maps it was not trained on, and asks the simulator what is truly seen.

    A scripted player wanders on; see `RollOuts` for the values, with horizons in steps of one action. Beside them:

    - `fidelity_turns@<h>`, `fidelity_moves@<h>`: share of pairs of keys, over all cases, where the frame imagined while
      holding a key (LEFT, RIGHT; W, S, A, D) is closer to the truth, in tokens, than the one imagined while holding
      another. Chance is 0.5. The noise is the same. Pairs of keys that lead to the same place (a wall is in the way)
      are left out.

    Args:
        maps: of Freedoom 2, none of which may be trained on.
        cases: per map.
        horizons: steps at which frames are compared.
        key_steps: for how many steps a key is held.
        draws: that are averaged.
        sampler: of the frames; the model's own by default.
        network: of the perceptual and the Fréchet distance; EfficientNet-Lite0 by default.
        gamma: brightens the game, as in the recipe of the training data.
        seed: of the cases and of all noise.
    """

    folder = "world_model"

    def __init__(
        self,
        maps: tuple[str, ...] = ("map05", "map11", "map14", "map17"),
        cases: int = 8,
        horizons: tuple[int, ...] = (1, 2, 4, 8, 16),
        key_steps: int = 4,
        draws: int = 8,
        sampler: FlowSampler | None = None,
        network: FeatureNetwork | None = None,
        gamma: float = 1.5,
        seed: int = 0,
    ) -> None:
        if len(maps) * cases < 2:
            raise Mistake(
                f"WorldModelEvaluation has {len(maps)} maps and {cases} cases on each; it compares with the actions of "
                "another case, so give two or more in all"
            )
        super().__init__(draws, sampler, network, seed)
        self.maps, self.per_map, self.horizons, self.key_steps = maps, cases, horizons, key_steps
        self.gamma = gamma
        self._cases: list[Case] = []

    def settings(self) -> dict[str, Any]:
        """And the maps."""
        return super().settings() | {"maps": self.maps}

    def away(self, cases: int) -> int:
        """To a case on another map, where there is one: within a map the player may well do the same twice."""
        return self.per_map if len(self.maps) > 1 else 1

    def horizons_of(self, trainer: Trainer, source: str) -> Sequence[Horizon]:
        """As they are given."""
        return [Horizon(f"{steps}", steps) for steps in self.horizons]

    def walked(self, decoder: Decoder, trainer: Trainer, source: str, dataset: ActionVideoDataset) -> Sequence[Walked]:
        """A scripted player's walks."""
        data = trainer.datamodule.mixture.sources[source]  # type: ignore[attr-defined]
        simulators = held_out(self.maps, data, decoder.vision.image_size, self.gamma, self.seed)
        self._cases = [
            simulator.case(number, max(self.horizons), KEYS, self.key_steps)
            for simulator in simulators
            for number in range(self.per_map)
        ]
        walks = [(case, case.walks["wander"]) for case in self._cases]
        return [Walked(case.level, case.context, walk.frames[1:], walk.actions) for case, walk in walks]

    def more(self, decoder: Decoder, judge: Judge) -> dict[str, float]:
        """Whether keys are obeyed."""
        held = self._hold(decoder, self._cases)
        values = {}
        for steps in sorted({h for h in self.horizons if h <= self.key_steps}):
            for name, (right, total) in zip(CLASSES, self._fidelity(judge, self._cases, held, steps), strict=True):
                if total:
                    values[f"fidelity_{name}@{steps}"] = right / total
                values[f"fidelity_{name}_pairs@{steps}"] = float(total)
        return values

    def _hold(self, decoder: Decoder, cases: Sequence[Case]) -> list[Tensor]:
        """What is imagined while holding each key, (cases, key_steps, N, C); the same noise for all keys."""

        def actions(name: str) -> Callable[[int], Sequence[str]]:
            return lambda i: cases[i].walks[name].actions

        contexts = [case.context for case in cases]
        return [self.imagine(decoder, contexts, actions("+".join(key)), self.seed) for key in KEYS]

    def _fidelity(
        self, judge: Judge, cases: Sequence[Case], held: Sequence[Tensor], steps: int
    ) -> list[tuple[int, int]]:
        names = ["+".join(key) for key in KEYS]
        distances = torch.zeros(len(cases), len(KEYS), len(KEYS))
        for j, name in enumerate(names):
            truth = judge.decoder.vision.encode(
                torch.stack([case.walks[name].frames[steps] for case in cases]).to(judge.decoder.device)
            )
            for i, latents in enumerate(held):
                distances[:, i, j] = (latents[:, steps - 1] - truth).square().mean((1, 2)).cpu()

        def differ(case: int, one: int, other: int) -> bool:
            return different_ends(cases[case], names[one], names[other], steps)

        return action_fidelity(distances, differ, list(CLASSES.values()))


def different_ends(case: Case, one: str, other: str, steps: int) -> bool:
    """Whether two walks of a case are at different points of the map, or look elsewhere, after so many steps."""
    a, b = case.walks[one].poses[steps], case.walks[other].poses[steps]
    turned = abs((a.angle - b.angle + 180) % 360 - 180)
    return abs(a.x - b.x) + abs(a.y - b.y) > _DIFFERENT[0] or turned > _DIFFERENT[1]

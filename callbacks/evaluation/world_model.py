"""Imagined walks through the game, held against the simulator (paper §5)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchvision.io import write_png

from callbacks.evaluation.final_evaluation import FinalEvaluation, unused
from callbacks.pages.contact_sheet import SheetRow, contact_sheet
from data_modules.action_video import ActionVideoDataset
from data_modules.dataset import DocumentDataset
from data_modules.simulator import MOVES, TURNS, Case, held_out
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.imagined import Judge, action_fidelity
from lit_mm.generation.roll_out import RollOut, roll_out
from lit_mm.mistake import Mistake
from lit_mm.training.run_folder import run_folder
from lit_mm.vision.metrics.features import EfficientNetLite0, FeatureNetwork

KEYS = (*TURNS, *MOVES)
CLASSES = {"turns": [0, 1], "moves": [2, 3, 4, 5]}
_DIFFERENT = 16.0, 5.0  # map units or degrees from which two ways to go on have led to different places
_TOGETHER = 64  # roll-outs at a time


class WorldModelEvaluation(FinalEvaluation):
    """Rolls the model out on maps it was not trained on, and asks the simulator what is truly seen.

    For every validation source of actions, at each horizon h (in steps of one action), as `val/<source>/…`:

    - `<measure>@<h>`: how far one draw is from the truth while a scripted player wanders on. Measures are those of
      `lit_mm.generation.imagined.Judge`.
    - `<measure>_mean@<h>`: the mean of `draws` draws' tokens, since even a perfect sampler's single draw is off by
      twice the conditional variance.
    - `<measure>_copy@<h>`: the last frame of the context, copied. `<measure>_shuffled@<h>` and
      `<measure>_shuffled_mean@<h>`: the model with the actions of another case.
    - `fidelity_turns@<h>`, `fidelity_moves@<h>`: share of pairs of keys, over all cases, where the frame imagined while
      holding a key (LEFT, RIGHT; W, S, A, D) is closer to the truth, in tokens, than the one imagined while holding
      another. Chance is 0.5. The noise is the same. Pairs of keys that lead to the same place (a wall is in the way)
      are left out.

    All numbers and the counts behind them are in `world_model/step_*.json` of the run folder, beside a picture of some
    cases. See `FinalEvaluation` for when it runs.

    Args:
        maps: of Freedoom 2, none of which may be trained on.
        cases: per map.
        horizons: steps at which frames are compared.
        key_steps: for how many steps a key is held.
        draws: that are averaged.
        sampler: of the frames; the model's own by default.
        network: of the perceptual distance; EfficientNet-Lite0 by default.
        gamma: brightens the game, as in the recipe of the training data.
        seed: of the cases and of all noise.
    """

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
        self.maps, self.cases, self.horizons, self.key_steps = maps, cases, horizons, key_steps
        self.draws, self.sampler, self.network, self.gamma, self.seed = draws, sampler, network, gamma, seed

    def evaluate(self, trainer: Trainer, module: Any, source: str, dataset: DocumentDataset) -> dict[str, float]:
        """See `FinalEvaluation.evaluate`."""
        if not isinstance(dataset, ActionVideoDataset):
            return {}
        decoder: Decoder = module.decoder()
        data = trainer.datamodule.modules()[source]  # type: ignore[attr-defined]
        simulators = held_out(self.maps, data, decoder.vision.image_size, self.gamma, self.seed)
        cases = [
            simulator.case(number, max(self.horizons), KEYS, self.key_steps)
            for simulator in simulators
            for number in range(self.cases)
        ]
        judge = Judge(decoder, self.network or EfficientNetLite0(), _name(self.network))
        imagined = self._wander(decoder, cases)
        values = self._by_horizon(judge, cases, imagined)
        held = self._hold(decoder, cases)
        for steps in sorted({h for h in self.horizons if h <= self.key_steps}):
            for name, (right, total) in zip(CLASSES, self._fidelity(judge, cases, held, steps), strict=True):
                if total:
                    values[f"fidelity_{name}@{steps}"] = right / total
                values[f"fidelity_{name}_pairs@{steps}"] = float(total)
        self._write(trainer, decoder, cases, imagined["draw"], values)
        return values

    def _imagine(
        self, decoder: Decoder, cases: Sequence[Case], actions: Callable[[int], Sequence[str]], seed: int
    ) -> Tensor:
        """(cases, steps, N, C)."""
        asked = [RollOut(case.context, actions(i), seed + 1000 * i, self.sampler) for i, case in enumerate(cases)]
        drawn = [
            frames
            for start in range(0, len(asked), _TOGETHER)
            for frames in roll_out(decoder, asked[start : start + _TOGETHER])
        ]
        return torch.stack(drawn)

    def _wander(self, decoder: Decoder, cases: Sequence[Case]) -> dict[str, Tensor]:
        """What each way to imagine makes of the wandering, (cases, steps, N, C)."""
        own = [case.walks["wander"].actions for case in cases]
        # Of a case on another map, where there is one: within a map the player may well do the same twice.
        away = self.cases if len(self.maps) > 1 else 1
        other = [own[(i + away) % len(cases)] for i in range(len(cases))]
        seeds = [self.seed + 100_000 * draw for draw in range(self.draws)]
        true = torch.stack([self._imagine(decoder, cases, own.__getitem__, seed) for seed in seeds])
        shuffled = torch.stack([self._imagine(decoder, cases, other.__getitem__, seed) for seed in seeds])
        last = decoder.vision.encode(torch.stack([case.context[-1] for case in cases]).to(decoder.device))
        return {
            "draw": true[0],
            "mean": true.mean(0),
            "shuffled": shuffled[0],
            "shuffled_mean": shuffled.mean(0),
            "copy": last[:, None].expand(-1, max(self.horizons), -1, -1),
        }

    def _by_horizon(self, judge: Judge, cases: Sequence[Case], imagined: dict[str, Tensor]) -> dict[str, float]:
        values = {}
        for horizon in self.horizons:
            truth = torch.stack([case.walks["wander"].frames[horizon] for case in cases])
            for way, latents in imagined.items():
                suffix = "" if way == "draw" else f"_{way}"
                for measure, of_cases in judge(latents[:, horizon - 1], truth).items():
                    values[f"{measure}{suffix}@{horizon}"] = float(of_cases.mean())
        return values

    def _hold(self, decoder: Decoder, cases: Sequence[Case]) -> list[Tensor]:
        """What is imagined while holding each key, (cases, key_steps, N, C); the same noise for all keys."""

        def actions(name: str) -> Callable[[int], Sequence[str]]:
            return lambda i: cases[i].walks[name].actions

        return [self._imagine(decoder, cases, actions("+".join(key)), self.seed) for key in KEYS]

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

    def _write(
        self, trainer: Trainer, decoder: Decoder, cases: Sequence[Case], drawn: Tensor, values: dict[str, float]
    ) -> None:
        run = run_folder(trainer)
        if not trainer.is_global_zero or not run:
            return
        folder = run / "world_model"
        folder.mkdir(parents=True, exist_ok=True)
        stem = unused(folder / f"step_{trainer.global_step:07d}.json").stem
        settings: dict[str, Any] = {"maps": self.maps, "cases": len(cases), "draws": self.draws, "seed": self.seed}
        (folder / f"{stem}.json").write_text(json.dumps(settings | values, indent=1) + "\n", encoding="utf-8")
        rows = []
        for case, latents in list(zip(cases, drawn, strict=True))[:: self.cases]:
            at = [h - 1 for h in self.horizons]
            names = [f"+{h}" for h in self.horizons]
            truth = case.walks["wander"].frames[1:][at]
            rows.append(SheetRow(torch.cat([case.context[-1:], truth]), ["last", *names], f"{case.level}: the truth"))
            shown = torch.cat([case.context[-1:], decoder.decode(latents[at]).cpu()])
            rows.append(SheetRow(shown, ["last", *names], "imagined"))
        write_png(contact_sheet(rows), str(folder / f"{stem}.png"))


def different_ends(case: Case, one: str, other: str, steps: int) -> bool:
    """Whether two walks of a case are at different points of the map, or look elsewhere, after so many steps."""
    a, b = case.walks[one].poses[steps], case.walks[other].poses[steps]
    turned = abs((a.angle - b.angle + 180) % 360 - 180)
    return abs(a.x - b.x) + abs(a.y - b.y) > _DIFFERENT[0] or turned > _DIFFERENT[1]


def _name(network: FeatureNetwork | None) -> str:
    return "efficientnet_lite0" if network is None else type(network).__name__.lower()

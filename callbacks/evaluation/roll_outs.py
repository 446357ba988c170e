"""Imagined roll-outs, held against what is known to have come: held-out episodes, or a simulator (paper §5)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchvision.io import write_png

from callbacks.evaluation.final_evaluation import FinalEvaluation, unused
from callbacks.pages.contact_sheet import SheetRow, contact_sheet
from data_modules.action_video import ActionVideoDataset
from data_modules.dataset import DocumentDataset
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.imagined import Judge
from lit_mm.generation.roll_out import RollOut, roll_out
from lit_mm.training.run_folder import run_folder
from lit_mm.vision.metrics.features import EfficientNetLite0, FeatureNetwork
from lit_mm.vision.metrics.frechet import FrechetDistances

TOGETHER = 64  # roll-outs at a time
SHOWN = 4  # cases in the picture


@dataclass(frozen=True)
class Walked:
    """What truly came after some frames.

    Attributes:
        name: where it is from.
        context: (context, 3, image_size, image_size) uint8, oldest first.
        frames: (steps, 3, image_size, image_size) uint8, those that came.
        actions: texts of the steps.
    """

    name: str
    context: Tensor
    frames: Tensor
    actions: Sequence[str]


@dataclass(frozen=True)
class Horizon:
    """How far ahead frames are compared.

    Args:
        name: as it stands in the names of values, `8` steps or `2s`, seconds.
        steps: of one action each.
    """

    name: str
    steps: int


class RollOuts(FinalEvaluation):
    """Rolls the model out with the actions that were taken, and compares what it imagines with what came.

    For every validation source of actions, at each horizon h, as `val/<source>/…`:

    - `<measure>@<h>`: how far one draw is from the truth. Measures are those of `lit_mm.generation.imagined.Judge`.
    - `<measure>_mean@<h>`: the mean of `draws` draws' tokens, since even a perfect sampler's single draw is off by
      twice the conditional variance.
    - `<measure>_copy@<h>`: the last frame of the context, copied. `<measure>_shuffled@<h>` and
      `<measure>_shuffled_mean@<h>`: the model with the actions of another case.
    - `frechet_<network>@<h>` and the same with `_copy` and `_shuffled`: Fréchet distance of all cases' frames, see
      `FrechetDistances`. It falls with the number of cases: compare at equal ones.

    All numbers and the counts behind them are in `<folder>/step_*.json` of the run folder, beside a picture of some
    cases. See `FinalEvaluation` for when it runs.

    Args:
        draws: that are averaged.
        sampler: of the frames; the model's own by default.
        network: of the perceptual and the Fréchet distance; EfficientNet-Lite0 by default.
        seed: of the cases and of all noise.

    Attributes:
        folder: of its files in the run folder.
    """

    folder = "roll_outs"

    def __init__(self, draws: int, sampler: FlowSampler | None, network: FeatureNetwork | None, seed: int) -> None:
        self.draws, self.sampler, self.network, self.seed = draws, sampler, network, seed

    def walked(self, decoder: Decoder, trainer: Trainer, source: str, dataset: ActionVideoDataset) -> Sequence[Walked]:
        """The cases; all of equally many steps, those of `horizons` at least."""
        raise NotImplementedError

    def horizons_of(self, trainer: Trainer, source: str) -> Sequence[Horizon]:
        """How far ahead frames are compared."""
        raise NotImplementedError

    def away(self, cases: int) -> int:
        """How many cases further the one is whose actions are taken instead."""
        return max(1, cases // 2)

    def settings(self) -> dict[str, Any]:
        """What is written beside the values."""
        return {"draws": self.draws, "seed": self.seed}

    def more(self, decoder: Decoder, judge: Judge) -> dict[str, float]:
        """Further values of the cases that `walked` gave."""
        return {}

    def evaluate(self, trainer: Trainer, module: Any, source: str, dataset: DocumentDataset) -> dict[str, float]:
        """See `FinalEvaluation.evaluate`."""
        if not isinstance(dataset, ActionVideoDataset):
            return {}
        decoder: Decoder = module.decoder()
        horizons = self.horizons_of(trainer, source)
        cases = self.walked(decoder, trainer, source, dataset)
        network = self.network or EfficientNetLite0()
        judge = Judge(decoder, network, _name(self.network))
        imagined = self._wander(decoder, cases, max(h.steps for h in horizons))
        values = self._by_horizon(judge, network, cases, imagined, horizons) | self.more(decoder, judge)
        self._write(trainer, decoder, cases, imagined["draw"], values, horizons)
        return values

    def imagine(
        self, decoder: Decoder, contexts: Sequence[Tensor], actions: Callable[[int], Sequence[str]], seed: int
    ) -> Tensor:
        """What comes after each context, (cases, steps, N, C)."""
        asked = [RollOut(context, actions(i), seed + 1000 * i, self.sampler) for i, context in enumerate(contexts)]
        drawn = [
            frames
            for start in range(0, len(asked), TOGETHER)
            for frames in roll_out(decoder, asked[start : start + TOGETHER])
        ]
        return torch.stack(drawn)

    def _wander(self, decoder: Decoder, cases: Sequence[Walked], steps: int) -> dict[str, Tensor]:
        """What each way to imagine makes of the actions, (cases, steps, N, C)."""
        contexts, own = [case.context for case in cases], [case.actions[:steps] for case in cases]
        away = self.away(len(cases))
        other = [own[(i + away) % len(cases)] for i in range(len(cases))]
        seeds = [self.seed + 100_000 * draw for draw in range(self.draws)]
        true = torch.stack([self.imagine(decoder, contexts, own.__getitem__, seed) for seed in seeds])
        shuffled = torch.stack([self.imagine(decoder, contexts, other.__getitem__, seed) for seed in seeds])
        last = decoder.vision.encode(torch.stack([context[-1] for context in contexts]).to(decoder.device))
        return {
            "draw": true[0],
            "mean": true.mean(0),
            "shuffled": shuffled[0],
            "shuffled_mean": shuffled.mean(0),
            "copy": last[:, None].expand(-1, steps, -1, -1),
        }

    def _by_horizon(
        self,
        judge: Judge,
        network: FeatureNetwork,
        cases: Sequence[Walked],
        imagined: dict[str, Tensor],
        horizons: Sequence[Horizon],
    ) -> dict[str, float]:
        values = {}
        frechet = FrechetDistances(network)
        for horizon in horizons:
            truth = torch.stack([case.frames[horizon.steps - 1] for case in cases])
            for way, latents in imagined.items():
                suffix = "" if way == "draw" else f"_{way}"
                at = latents[:, horizon.steps - 1]
                for measure, of_cases in judge(at, truth).items():
                    values[f"{measure}{suffix}@{horizon.name}"] = float(of_cases.mean())
                if not way.endswith("mean"):  # the mean of several draws is no draw: its frames are blurred
                    add_frames(frechet, judge.decoder, at, truth, f"{suffix}@{horizon.name}")
        found = frechet.compute(
            [f"{s}@{h.name}" for h in horizons for s in ("", "_shuffled", "_copy")], judge.decoder.device
        )
        return values | {f"frechet_{judge.name}{name}": value for name, value in found.items()}

    def _write(
        self,
        trainer: Trainer,
        decoder: Decoder,
        cases: Sequence[Walked],
        drawn: Tensor,
        values: dict[str, float],
        horizons: Sequence[Horizon],
    ) -> None:
        run = run_folder(trainer)
        if not trainer.is_global_zero or not run:
            return
        folder = run / self.folder
        folder.mkdir(parents=True, exist_ok=True)
        stem = unused(folder / f"step_{trainer.global_step:07d}.json").stem
        steps = {h.name: h.steps for h in horizons}
        settings = self.settings() | {"cases": [case.name for case in cases], "steps": steps}
        (folder / f"{stem}.json").write_text(json.dumps(settings | values, indent=1) + "\n", encoding="utf-8")
        rows, at = [], [h.steps - 1 for h in horizons]
        for case, latents in list(zip(cases, drawn, strict=True))[:: max(1, len(cases) // SHOWN)]:
            names = ["last", *(f"+{h.name}" for h in horizons)]
            rows.append(SheetRow(torch.cat([case.context[-1:], case.frames[at]]), names, f"{case.name}: the truth"))
            rows.append(SheetRow(torch.cat([case.context[-1:], decoder.decode(latents[at]).cpu()]), names, "imagined"))
        write_png(contact_sheet(rows), str(folder / f"{stem}.png"))


def add_frames(frechet: FrechetDistances, decoder: Decoder, latents: Tensor, truth: Tensor, name: str) -> None:
    """Count imagined frames (F, N, C) and true ones (F, 3, height, width) under a name."""
    for some, true in zip(latents.split(TOGETHER), truth.split(TOGETHER), strict=True):
        ids = torch.zeros(len(true), dtype=torch.int64)
        frechet.add(decoder.decode(some) / 255, true.to(decoder.device) / 255, ids, [name])


def _name(network: FeatureNetwork | None) -> str:
    return "efficientnet_lite0" if network is None else type(network).__name__.lower()

"""Roll-outs along held-out episodes, which are the truth: no simulator is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lightning.pytorch import Trainer

from callbacks.evaluation.roll_outs import Horizon, RollOuts, Walked
from data_modules.action_dataset import ActionVideoDataset
from data_modules.reading.action_documents import episode_writer, frames_seen
from data_modules.reading.frame_keys import frame_keys
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.mistake import Mistake
from lit_mm.vision.metrics.features import FeatureNetwork

if TYPE_CHECKING:
    from data_modules.action_video import ActionVideoDataModule


class EpisodeRollOuts(RollOuts):
    """Rolls the model out along the validation episodes of every source of actions; see `RollOuts` for the values.

    Cases are places with a full context and enough frames behind it, evenly spread over all episodes. Each step is one
    action, told as the data module writes it. With `unit: seconds`, horizons are named `2s`, and the data module has to
    say the rate at which the model sees the world (`fps`).

    Args:
        cases: of each source.
        horizons: at which frames are compared, in steps or seconds.
        unit: of the horizons. Navigation World Models compares at 1, 2, 4, 8 and 16 seconds.
        draws: that are averaged.
        sampler: of the frames; the model's own by default.
        network: of the perceptual and the Fréchet distance; EfficientNet-Lite0 by default.
        seed: of all noise.

    Raises:
        Mistake: there is no case or no horizon.
    """

    def __init__(
        self,
        cases: int = 32,
        horizons: tuple[float, ...] = (1, 2, 4, 8),
        unit: Literal["steps", "seconds"] = "steps",
        draws: int = 1,
        sampler: FlowSampler | None = None,
        network: FeatureNetwork | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(draws, sampler, network, seed)
        if cases < 2:
            raise Mistake(
                f"EpisodeRollOuts has {cases} cases; it compares with the actions of another, so give 2 or more"
            )
        if not horizons or min(horizons) <= 0 or (unit == "steps" and any(h % 1 for h in horizons)):
            raise Mistake(f"EpisodeRollOuts has the horizons {list(horizons)}; give whole steps, or seconds, above 0")
        if draws < 1:
            raise Mistake(f"EpisodeRollOuts has {draws} draws; give 1 or more")
        self.cases, self.horizons, self.unit = cases, horizons, unit

    def settings(self) -> dict[str, Any]:
        """And the horizons' unit."""
        return super().settings() | {"unit": self.unit}

    def horizons_of(self, trainer: Trainer, source: str) -> Sequence[Horizon]:
        """As they are given, or by the rate of the data module."""
        if self.unit == "steps":
            return [Horizon(f"{int(steps)}", int(steps)) for steps in self.horizons]
        data: ActionVideoDataModule = trainer.datamodule.modules()[source]  # type: ignore[attr-defined]
        if data.fps is None:
            raise Mistake(
                f"EpisodeRollOuts counts in seconds, but source '{source}' does not say how many frames a second the "
                "model sees; give its data module `fps`, or count in steps"
            )
        return [Horizon(f"{seconds:g}s", max(1, round(seconds * data.fps))) for seconds in self.horizons]

    def walked(self, decoder: Decoder, trainer: Trainer, source: str, dataset: ActionVideoDataset) -> Sequence[Walked]:
        """Evenly spread places of the validation episodes."""
        steps = max(h.steps for h in self.horizons_of(trainer, source))
        places = list(_places(dataset, steps))
        if len(places) < 2:
            raise Mistake(
                f"EpisodeRollOuts looks {steps} steps ahead, but source '{source}' has no two places with so many "
                "behind the context; give smaller horizons"
            )
        chosen = np.unique(np.linspace(0, len(places) - 1, self.cases).round().astype(int))
        return [_walked(dataset, row, anchor, steps) for row, anchor in (places[number] for number in chosen)]


def _places(dataset: ActionVideoDataset, steps: int) -> Iterator[tuple[int, int]]:
    """Rows of episodes and last context frames, counted among those seen, with so many steps to come."""
    plan = dataset.plan
    for row in dataset.table.usable().tolist():
        count = len(frames_seen(dataset.table.index(row), plan.fps))
        first, stop = (plan.context - 1) * plan.frame_step, count - steps * plan.frame_step
        yield from ((row, anchor) for anchor in range(first, stop))


def _walked(dataset: ActionVideoDataset, row: int, anchor: int, steps: int) -> Walked:
    plan, step = dataset.plan, dataset.plan.frame_step
    index = dataset.table.index(row)
    seen = frames_seen(index, plan.fps)
    at = seen[anchor + np.arange(1 - plan.context, steps + 1) * step]
    assert dataset.pictures is not None
    frames = torch.stack(dataset.pictures.read(frame_keys(row, at).tolist()))
    write = episode_writer(dataset.table.columns(row), index, plan)
    ahead = at[plan.context - 1 :].tolist()
    actions = [write(start, stop, 1) for start, stop in pairwise(ahead)]
    name = f"{dataset.table.path(row)}, frame {ahead[0]}"
    return Walked(name, frames[: plan.context], frames[plan.context :], actions)

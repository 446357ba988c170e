"""What a checkpoint's own configuration says of the walks that it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_modules.action_video import ActionVideoDataModule, ActionVideoSource
from data_modules.prompting.steering import Steering
from lit_mm.mistake import Mistake
from lit_mm.parallel.checkpoint_files import read_header
from lit_mm.parallel.exported import CONFIG_KEY

_CLASSES = [f"{kind.__module__}.{kind.__qualname__}" for kind in (ActionVideoSource, ActionVideoDataModule)]
_SIMULATED = "data_modules.game.simulated.SimulatedDataModule"


@dataclass(frozen=True)
class Walks:
    """Video with actions, as a model has seen it; the fields mean what they mean in `ActionVideoSource`."""

    actions: str = "moves"
    unit: float = 1.0
    context: int = 4
    frame_step: int = 1
    horizon: int = 8
    val: str | None = None

    def check(self, steering: Steering) -> None:
        """Whether a steering file is for such data.

        Raises:
            Mistake: one of its steps is no whole number of the data's.
        """
        steps = steering.rel_t * self.horizon
        if abs(steps - round(steps)) > 1e-6 or round(steps) < 1:
            fits = ", ".join(f"{n / self.horizon:g}" for n in range(1, min(self.horizon, 3) + 1))
            raise Mistake(
                f"data.steering: '{steering.path}' is for other data: its rel_t is {steering.rel_t:g}, but the model "
                f"was trained on a horizon of {self.horizon}, where a step is {fits}; give that of its data"
            )


def walks_of(checkpoint: Path) -> Walks | None:
    """The walks that a checkpoint was trained on; None if there were none.

    Raises:
        Mistake: the checkpoint cannot be read.
    """
    config = yaml.safe_load(read_header(checkpoint)[CONFIG_KEY])
    for given in _sources(config.get("data") or {}):
        names = Walks.__dataclass_fields__
        return Walks(**{name: value for name, value in given.items() if name in names})
    return None


def _sources(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Settings of all sources of video with actions."""
    given = data.get("init_args") or {}
    if data.get("class_path") in (*_CLASSES, _SIMULATED):
        yield given
    for source in (given.get("sources") or {}).values():
        yield from _sources(source)

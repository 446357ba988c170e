"""How frames are drawn, and at what pace."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from lit_mm.flow.sampler import FlowSampler
from lit_mm.mistake import Mistake

# Least and greatest value of each, which the page's sliders have too.
RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, 50),
    "guidance": (1, 10),
    "noise": (0, 1.5),
    "seed": (0, 2**31 - 1),
    "pace": (1, 30),
}
WHOLE = ("steps", "seed", "pace")


@dataclass(frozen=True)
class Settings:
    """What the sliders say.

    Args:
        steps: from noise to frame.
        guidance: how strongly the action or the caption is followed; 1 is not at all guided.
        noise: deviation of the noise that drawing starts from.
        seed: of the noise.
        pace: most frames a second while keys are held.
        method: of the sampler.
    """

    steps: int = 10
    guidance: float = 1.0
    noise: float = 1.0
    seed: int = 0
    pace: int = 12
    method: str = "euler"

    @classmethod
    def of(cls, sampler: FlowSampler) -> Settings:
        """Those of a model's own sampler."""
        return cls(sampler.steps, sampler.guidance_scale, sampler.noise_scale, method=sampler.method)

    @property
    def sampler(self) -> FlowSampler:
        """What draws with them."""
        return FlowSampler.shared(self.method, self.steps, self.guidance, self.noise)  # type: ignore[arg-type]

    @property
    def prompt(self) -> dict[str, Any]:
        """The same as options of a prompt."""
        drawn = {"steps": self.steps, "guidance_scale": self.guidance, "noise_scale": self.noise}
        return {"seed": self.seed, "method": self.method, **drawn}

    def changed(self, given: dict[str, Any]) -> Settings:
        """With some other values.

        Raises:
            Mistake: one has no such name, or is out of its range.
        """
        for name, value in given.items():
            low, high = RANGES.get(name, (0.0, -1.0))
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not low <= value <= high or (name in WHOLE and value != int(value)):
                if name not in RANGES:
                    raise Mistake(f"there is no setting '{name}', but {', '.join(RANGES)}")
                whole = "whole " if name in WHOLE else ""
                raise Mistake(f"{name} is {value!r:.40}; give a {whole}number from {low:g} to {high:g}")
        known = {field.name: type(getattr(self, field.name)) for field in fields(self)}
        return replace(self, **{name: known[name](value) for name, value in given.items()})

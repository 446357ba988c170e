"""Mixtures that come before the last one: weights as a step function of the tokens planned so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lit_mm.mistake import Mistake


@dataclass(frozen=True)
class Stage:
    """The mixture of the tokens before `until`, from the end of the stage before it.

    Args:
        until: tokens of the run, positions of the rows of all devices, after which the next stage begins.
        weights: share of the tokens of each source, by name; a source that is not named gets none.
    """

    until: float
    weights: dict[str, float]


def check_weights(weights: Mapping[str, float], sources: Sequence[str], key: str) -> None:
    """Refuse weights that make no mixture of `sources`.

    Raises:
        Mistake: a source is unknown, a weight is negative or not finite, or all are 0. `key` says where.
    """
    for name, weight in weights.items():
        if name not in sources:
            raise Mistake(f"{key} names an unknown source '{name}'; data.sources has: {', '.join(sources)}")
        if not 0 <= weight < float("inf"):
            raise Mistake(f"{key}.{name} is {weight}; a weight is 0 or a positive number")
    if not any(weights.values()):
        raise Mistake(f"{key} are all 0; at least one source needs a positive weight")


def check_stages(stages: Sequence[Stage], sources: Sequence[str]) -> None:
    """Refuse stages that don't follow one another.

    Raises:
        Mistake: one ends before it begins, or its weights make no mixture.
    """
    begin = 0.0
    for number, stage in enumerate(stages):
        check_weights(stage.weights, sources, f"data.stages[{number}].weights")
        if not begin < stage.until < float("inf"):
            raise Mistake(
                f"data.stages[{number}].until is {stage.until:g}; it has to be above {begin:g}, where it begins"
            )
        begin = stage.until


def weights_at(tokens: int, weights: Mapping[str, float], stages: Sequence[Stage]) -> Mapping[str, float]:
    """The mixture after `tokens`: that of the first stage which has not ended, or `weights` after all of them."""
    return next((stage.weights for stage in stages if tokens < stage.until), weights)


def ever_drawn(name: str, weights: Mapping[str, float], stages: Sequence[Stage]) -> bool:
    """Whether a source is trained on in any stage, or after them."""
    return any(mixture.get(name, 0) > 0 for mixture in (weights, *(stage.weights for stage in stages)))

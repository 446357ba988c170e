"""Values of prompts, checked one by one: a `Mistake` says the key, what was found and what would be right."""

from __future__ import annotations

import math
from typing import Any

from data_modules.reading.cropping import Cropping
from data_modules.reading.files import listed
from data_modules.reading.pictures import Square
from lit_mm.mistake import Mistake

_RULES = ("centre", "squash", "four_thirds")
_METHODS = ("euler", "heun")
_TOO_MANY = 2**62  # seeds are counted up from there
_COUNTS = {"max_tokens": 1, "max_frames": 0, "repeat": 1, "seed": 0, "top_k": 0, "steps": 1}  # and their least values


def text_of(asked: dict[str, Any], key: str) -> str:
    """A text. YAML reads `continue: 1789` as a number; a list or a mapping is no text however it is read."""
    value = asked[key]
    if isinstance(value, list | dict) or value is None or not str(value).strip():
        raise Mistake(f"'{key}' is {value!r}; give a text")
    if any("\ud800" <= character <= "\udfff" for character in str(value)):
        raise Mistake(f"'{key}' is {value!r}, which holds half of a character (a lone surrogate); give a whole text")
    return str(value)


def list_of(asked: dict[str, Any], key: str, of: str) -> list[Any]:
    """A list that is not empty, of what `of` says."""
    value = asked.get(key)
    if not isinstance(value, list) or not value:
        raise Mistake(f"'{key}' is {value!r}; give a list of {of}")
    return value


def square_of(asked: dict[str, Any], size: int) -> Square:
    """What pictures become, by the rule of `crop`."""
    rule = asked.get("crop", "centre")
    if rule not in _RULES:
        raise Mistake(f"'crop' is {rule!r}; give {listed(_RULES)}")
    return Square(size, Cropping(rule).still)


def is_whole(value: Any) -> bool:
    """Whether it is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def count_of(asked: dict[str, Any], key: str, default: int) -> int:
    """A whole number of at least what `_COUNTS` says."""
    value = asked.get(key, default)
    if not is_whole(value) or not _COUNTS[key] <= value < _TOO_MANY:
        raise Mistake(f"'{key}' is {value!r}; give a whole number of {_COUNTS[key]} or more, below 2**62")
    return int(value)


def number_of(asked: dict[str, Any], key: str) -> float:
    """A finite number."""
    value = asked[key]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise Mistake(f"'{key}' is {value!r}; give a number")
    return number


def sampling_of(asked: dict[str, Any]) -> dict[str, float]:
    """Fields of `lit_mm.generation.sampling.TextSampling` that are given."""
    given: dict[str, float] = {k: number_of(asked, k) for k in ("temperature", "top_p", "min_p") if k in asked}
    if "top_k" in asked:
        given["top_k"] = count_of(asked, "top_k", 0)
    return given


def sampler_of(asked: dict[str, Any]) -> dict[str, Any]:
    """Fields of `lit_mm.flow.sampler.FlowSampler` that are given."""
    given: dict[str, Any] = {}
    for name in ("guidance_scale", "noise_scale"):
        if name in asked:
            given[name] = number_of(asked, name)
    if given.get("noise_scale", 0) < 0:
        raise Mistake(f"'noise_scale' is {asked['noise_scale']}; give a number of 0 or more")
    if "steps" in asked:
        given["steps"] = count_of(asked, "steps", 1)
    if "method" in asked:
        if asked["method"] not in _METHODS:
            raise Mistake(f"'method' is {asked['method']!r}; give one of {', '.join(_METHODS)}")
        given["method"] = asked["method"]
    return given

"""What is given to a `LoadedModel`, checked before anything is computed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_modules.prompting.prompts import prompts_of
from data_modules.prompting.steering import Steering
from data_modules.prompting.template import Template
from data_modules.reading.pictures import as_picture, is_picture
from lit_mm.generation.sampling import TextSampling
from lit_mm.mistake import Mistake
from lit_mm.prompt import FailedPrompt, Prompt

T = TypeVar("T")


def is_one(given: Any) -> bool:
    """Whether it is one text or picture, and not a list of them."""
    return isinstance(given, str) or is_picture(given)


def several(given: Any, of: str) -> list[Any]:
    """One text or picture as a list of one, a list as it is.

    Raises:
        Mistake: it is neither.
    """
    if is_one(given):
        return [given]
    if not isinstance(given, Sequence | Tensor | np.ndarray) or isinstance(given, bytes):
        raise Mistake(f"{of} is {given!r:.80}; give one, or a list")
    return list(given)


def as_given(given: Any, results: list[T]) -> T | list[T]:
    """A single result for a single thing."""
    return results[0] if is_one(given) else results


def texts(given: Any, of: str) -> list[str]:
    """A text or a list of texts, as a list.

    Raises:
        Mistake: it holds anything else.
    """
    found = several(given, of)
    for text in found:
        if not isinstance(text, str):
            raise Mistake(f"{of} holds {text!r:.80}; give a text, or a list of texts")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise Mistake(f"{of} holds {text!r:.80}, with half of a character (a lone surrogate); give whole ones")
    return found


def frames(given: Any) -> list[Any]:
    """What was seen so far, or several lists of that.

    Raises:
        Mistake: there is nothing.
    """
    if not (found := several(given, "frames")):
        raise Mistake("frames is empty; give at least one picture to go on from")
    return found


def tokens(given: Any, count: int, channels: int) -> Tensor:
    """Visual tokens of one picture or several as (pictures, count, channels).

    Raises:
        Mistake: they are of another shape.
    """
    if not isinstance(given, Tensor) or given.ndim not in (2, 3) or given.shape[-2:] != (count, channels):
        found = tuple(given.shape) if isinstance(given, Tensor) else f"a {type(given).__name__}"
        one = f"{count}, {channels}"
        raise Mistake(f"tokens are {found}; give a tensor ({one}), or (pictures, {one}) for several")
    return given if given.ndim == 3 else given[None]


def pixels(given: Any, size: int) -> list[Tensor]:
    """A picture or a list of pictures, as a list of (3, size, size) uint8.

    Raises:
        Mistake: something in it is no picture.
    """
    return [as_picture(picture, size) for picture in several(given, "pictures")]


def seeds(given: Any, count: int) -> list[int]:
    """One for each of `count` prompts.

    Raises:
        Mistake: there are not as many, or one is no whole number.
    """
    one = isinstance(given, str) or not isinstance(given, Sequence | np.ndarray)
    found = [whole("seed", seed, least=0) for seed in ([given] * count if one else given)]
    if len(found) != count:
        raise Mistake(f"seed has {len(found)} numbers for {count} prompts; give one for each, or one")
    return found


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of `least` or more.

    Raises:
        Mistake: it is none.
    """
    found = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else -1
    if not least <= found < 2**62:
        raise Mistake(f"{name} is {value!r}; give a whole number of {least} or more, below 2**62")
    return found


def number(name: str, value: Any) -> float:
    """A finite number.

    Raises:
        Mistake: it is none.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise Mistake(f"{name} is {value!r}; give a number")
    return float(value)


def sampler(guidance: Any = None, steps: Any = None, noise_scale: Any = None) -> dict[str, Any]:
    """Those settings of `lit_mm.flow.sampler.FlowSampler` that are given.

    Raises:
        Mistake: one is no number, or out of its range.
    """
    found: dict[str, Any] = {}
    if guidance is not None:
        found["guidance_scale"] = number("guidance", guidance)
    if steps is not None:
        found["steps"] = whole("steps", steps)
    if noise_scale is not None:
        found["noise_scale"] = number("noise_scale", noise_scale)
        if noise_scale < 0:
            raise Mistake(f"noise_scale is {noise_scale}; give a number of 0 or more")
    return found


def sampling(given: dict[str, Any]) -> dict[str, float]:
    """Settings of `TextSampling`, which checks their ranges itself.

    Raises:
        Mistake: there is no such setting, or one is no number.
    """
    known = [field.name for field in fields(TextSampling)]
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise Mistake(f"there is no argument '{name}' of sampling, but {', '.join(known)}{hint}")
        number(name, value)
    return given


def stops(given: Any) -> tuple[str, ...]:
    """Texts that end an answer.

    Raises:
        Mistake: something in it is no text, or an empty one.
    """
    found = texts(given, "stop")
    if "" in found:
        raise Mistake("stop holds an empty text, which would end every answer at once; leave it out")
    return tuple(found)


def prompts(given: Any, image_size: int, steering: str | None, template: Template) -> list[Prompt]:
    """Prompts as they are, and those that mappings ask for.

    Args:
        given: a list of `Prompt` and of mappings as in a file of prompts.
        image_size: side to which pictures of mappings are brought.
        steering: file that says what keys mean in these.
        template: how turns of conversations are written down in these.

    Raises:
        Mistake: something in it is neither, or cannot be asked.
    """
    if isinstance(given, str | Mapping | Prompt) or not isinstance(given, Sequence):
        raise Mistake(f"prompts is {given!r:.80}; give a list, such as [{{'draw': 'a red fox'}}]")
    keys = None if steering is None else Steering.load(steering)
    found: list[Prompt] = []
    for place, one in enumerate(given):
        if isinstance(one, Prompt):
            found.append(replace(one))
            continue
        if not isinstance(one, Mapping):
            raise Mistake(
                f"prompts[{place}] is {one!r:.80}; give a mapping such as {{'draw': 'a red fox'}}, or a "
                "lit_mm.prompt.Prompt"
            )
        for prompt in prompts_of(dict(one), image_size, keys, place, template):
            if isinstance(prompt, FailedPrompt):
                raise Mistake(prompt.error)
            found.append(prompt)
    return found


def image(pixels: Tensor) -> Image.Image:
    """Pixels (3, height, width) uint8 as a picture of PIL's."""
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def device(given: Any) -> torch.device:
    """Where to compute: what is given, else the GPU if there is one, else the CPU.

    Raises:
        Mistake: there is no such device.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if given is None:
        return torch.device("cuda" if gpus else "cpu")
    try:
        found = torch.device(given)
    except (RuntimeError, TypeError) as error:
        raise Mistake(f"device is {given!r}; give 'cpu' or 'cuda'") from error
    if found.type == "cuda" and (found.index or 0) >= gpus:
        raise Mistake(f"device is '{found}', but PyTorch finds {gpus or 'no'} GPUs here; leave it out, or give 'cpu'")
    return found


def source(given: Any) -> str | Path:
    """What to load.

    Raises:
        Mistake: it is no path and no name.
    """
    if not isinstance(given, str | Path):
        raise Mistake(f"source is {given!r:.80}; give the path of a checkpoint, or the name of a model such as 'lab'")
    return given

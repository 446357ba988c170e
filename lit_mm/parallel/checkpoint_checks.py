"""Whether a checkpoint is the configured model's, and whether averaged weights are among its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lit_mm.mistake import Mistake

_MODEL, _AVERAGED = "model.", "averaged."  # what names of weights, and of averaged weights, start with
_ADVICE = "use the configuration it was trained with (it is inside: give --ckpt_path without --config)"
_LAYER = re.compile(r"(.*?layers)\.(\d+)\.")
Shapes = Mapping[str, torch.Size]


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Shapes by name."""
    return {name: value.shape for name, value in weights.items()}


def check_vision(saved: str, own: str, advice: str = _ADVICE) -> None:
    """Refuse a checkpoint that was trained on the visual tokens of another tokenizer, both given by fingerprint.

    Raises:
        Mistake: they differ.
    """
    if saved != own:
        raise Mistake(
            f"the checkpoint was trained on the visual tokens of '{saved}', but model.vision is '{own}': {advice}"
        )


def check_tokenizers(header: Mapping[str, Any], vision: str, text: str, advice: str = _ADVICE) -> None:
    """Refuse a checkpoint of another kind of model, or of other visual tokens or text ids.

    Args:
        header: what the checkpoint holds beside weights.
        vision: fingerprint of the visual tokenizer.
        text: of the text tokenizer.
        advice: what to do, for the end of the sentence.

    Raises:
        Mistake: naming which.
    """
    if "vision" not in header or "text_tokenizer" not in header:
        raise Mistake(f"the checkpoint is of another kind of model (it names no tokenizers): {advice}")
    check_vision(header["vision"], vision, advice)
    if header["text_tokenizer"] != text:
        raise Mistake(
            f"the checkpoint was trained on the ids of another text tokenizer ('{header['text_tokenizer']}') than "
            f"data.tokenizer ('{text}'): {advice}"
        )


def check_shapes(saved: Shapes, own: Shapes, advice: str = _ADVICE) -> None:
    """Refuse a checkpoint whose weights are others, or of other shapes, than the model's. Averages may be missing.

    Raises:
        Mistake: naming the first that differs.
    """
    saved, own = _without_average(saved), _without_average(own)
    wanted = _depths(own)
    for name, depth in _depths(saved).items():
        if depth != wanted.get(name, depth):
            raise Mistake(
                f"the checkpoint has {depth} layers ('{name}'), the configured model {wanted[name]}: {advice}"
            )
    for name, shape in saved.items():
        if name not in own:
            raise Mistake(f"the checkpoint has '{name}', which the configured model lacks: {advice}")
        if own[name] != shape:
            raise Mistake(
                f"the checkpoint's '{name}' is {tuple(shape)}, the configured model's is {tuple(own[name])}: {advice}"
            )
    missing = [name for name in own if name not in saved]
    if missing:
        raise Mistake(f"the checkpoint lacks '{missing[0]}', which the configured model has: {advice}")


def has_average(names: Iterable[str]) -> bool:
    """Whether there are averaged weights among those of a checkpoint."""
    return any(name.startswith(_AVERAGED) for name in names)


def fit_average(weights: dict[str, Any], wanted: bool) -> None:
    """Leave averaged weights out where they are not wanted; where they are missing, let them begin at the weights."""
    if not wanted:
        for name in [name for name in weights if name.startswith(_AVERAGED)]:
            del weights[name]
    elif not has_average(weights):
        weights |= {_AVERAGED + name.removeprefix(_MODEL): value for name, value in weights.items()}


def _depths(names: Iterable[str]) -> dict[str, int]:
    """How many layers each list of them has, by the list's name, such as `backbone.layers`."""
    depths: dict[str, int] = {}
    for match in filter(None, map(_LAYER.match, names)):
        depths[match[1]] = max(depths.get(match[1], 0), int(match[2]) + 1)
    return depths


def _without_average(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.startswith(_AVERAGED)}

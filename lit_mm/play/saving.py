"""A walk as files: a film, and the prompts that `predict` draws the same frames for."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml
from PIL import Image

from lit_mm.mistake import Mistake
from lit_mm.play.views import png
from lit_mm.play.walk import Stretch, Walk

SCALE = 4  # pixels of the film for one of a picture
GAP = 8  # pixels between what is imagined and what is true
MILLISECONDS = 200  # of a frame of the film


def archive(walk: Walk, model: str) -> bytes:
    """A ZIP file of all that is kept of a walk.

    Args:
        walk: that was begun.
        model: what `--ckpt_path` calls the model.

    Raises:
        Mistake: no frame was imagined yet.
    """
    stretches = [stretch for stretch in walk.stretches if stretch.moments]
    if not stretches:
        raise Mistake("nothing to save yet; walk a step first")
    file = io.BytesIO()
    prompts: list[dict[str, Any]] = []
    with zipfile.ZipFile(file, "w") as packed:
        for number, stretch in enumerate(stretches):
            prompts.append(_prompt(packed, f"walk-{number}" if len(stretches) > 1 else "walk", stretch))
        command = f"# lit-mm predict --ckpt_path {model} --data.prompts walk/prompts.yaml\n"
        packed.writestr("walk/prompts.yaml", command + yaml.safe_dump(prompts, sort_keys=False, width=120))
        packed.writestr("walk/walk.gif", _film(stretches))
    return file.getvalue()


def _prompt(packed: zipfile.ZipFile, name: str, stretch: Stretch) -> dict[str, Any]:
    """A prompt, whose pictures are written beside it: those that were shown, and those that were truly seen."""

    def written(of: str, pictures: Sequence[np.ndarray]) -> list[str]:
        names = [f"{name}.{of}-{number}.png" for number in range(len(pictures))]
        for file, picture in zip(names, pictures, strict=True):
            packed.writestr(f"walk/{file}", png(picture))
        return names

    prompt: dict[str, Any] = {"name": name, "imagine": written("shown", [one.picture for one in stretch.beginning])}
    prompt |= {"actions": [moment.action for moment in stretch.moments], **stretch.settings.prompt}
    truths = [moment.truth for moment in stretch.moments if moment.truth is not None]
    if len(truths) == len(stretch.moments):
        prompt["truth"] = written("truth", truths)
    return prompt


def _film(stretches: Sequence[Stretch]) -> bytes:
    moments = [stretches[0].beginning[-1]] + [moment for stretch in stretches for moment in stretch.moments]
    true = all(moment.truth is not None for moment in moments)
    size = moments[0].picture.shape[0] * SCALE
    frames = []
    for moment in moments:
        frame = Image.new("RGB", (2 * size + GAP if true else size, size), "white")
        beside = [moment.truth] if true and moment.truth is not None else []
        for place, picture in enumerate([moment.picture, *beside]):
            large = Image.fromarray(picture).resize((size, size), Image.Resampling.NEAREST)
            frame.paste(large, (place * (size + GAP), 0))
        frames.append(frame)
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=MILLISECONDS, loop=0)
    return file.getvalue()

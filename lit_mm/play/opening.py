"""From weights to a game."""

from __future__ import annotations

from dataclasses import replace

from data_modules.prompting.steering import Steering
from lit_mm.generation.answers import check_pictures
from lit_mm.loaded_model import LoadedModel
from lit_mm.mistake import Mistake
from lit_mm.play.game import Game, episodes_of, truth_of
from lit_mm.play.settings import Settings
from lit_mm.play.trained_on import walks_of

STEPS = 2  # of a frame at first; more are slower, and no better for the shipped model, see docs/play.md


def game_of(model: LoadedModel, name: str, steering: str | None = None, truth: str = "auto") -> Game:
    """What a model can be played with.

    Args:
        model: that was loaded.
        name: how `predict` is told of it.
        steering: file that says what keys do; the model's own by default.
        truth: see `truth_of`.

    Raises:
        Mistake: the model draws no pictures, or the steering file cannot be read or is for other data.
    """
    try:
        check_pictures(model.decoder, "frames")
    except Mistake as error:
        raise Mistake(f"'{model.source}' cannot be played with: {error}") from error
    walks = walks_of(model.source)
    path = steering or model.steering
    keys = Steering.load(path) if path and walks else None
    if keys is not None and walks is not None:
        walks.check(keys)
    own = Settings.of(model.decoder.sampler)
    return Game(
        model,
        name,
        walks,
        keys,
        replace(own, steps=min(own.steps, STEPS)),
        own,
        truth_of(truth, walks, keys, model.image_size),
        episodes_of(walks),
    )

"""What all players share: the model, what its keys do, and who knows the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from torch import Tensor

from data_modules.prompting.steering import Steering
from data_modules.reading.decoding import VIDEO_SUFFIXES, VideoReader, index_video
from data_modules.reading.files import find_files
from data_modules.reading.pictures import square
from lit_mm.loaded_model import LoadedModel
from lit_mm.mistake import Mistake, from_extra
from lit_mm.play.settings import Settings
from lit_mm.play.trained_on import Walks
from lit_mm.play.truth import Truth


@dataclass(frozen=True)
class Game:
    """One model to play with.

    Attributes:
        model: that imagines.
        name: how `predict` is told of it.
        walks: what it was trained on; None for a model that only draws and describes.
        steering: what keys do; None where nobody says.
        settings: of walks at first.
        drawing: settings of pictures that are drawn from words at first.
        truth: makes a simulator, if there is one.
        episodes: files of the data's own walks, to begin in.
    """

    model: LoadedModel
    name: str
    walks: Walks | None
    steering: Steering | None
    settings: Settings
    drawing: Settings
    truth: Callable[[], Truth] | None
    episodes: tuple[Path, ...]

    @property
    def context(self) -> int:
        """Frames that the model reads."""
        return self.walks.context if self.walks else 1

    def action(self, keys: Sequence[str]) -> tuple[str, tuple[float, float, float]]:
        """What keys that are held together do: the text, and dx, dy and dyaw.

        Those that cannot be held together give way to the newest ones, and so does every key but the newest where the
        model was trained on what was told, one thing at a time. Nothing held is standing still.

        Raises:
            Mistake: nobody says what keys do.
        """
        if self.steering is None:
            raise Mistake("nobody says what keys do; name a steering file (--steering), or say it in a sentence")
        known = [key for key in dict.fromkeys(keys) if key in self.steering.keys]
        if self.walks and self.walks.actions == "told":
            known = known[-1:]
        while known:
            try:
                return self.steering.text("+".join(known)), self.steering.move("+".join(known))
            except Mistake:
                known = known[1:]
        return self.steering.text("0,0,0"), (0.0, 0.0, 0.0)

    def from_data(self, number: int) -> list[Tensor]:
        """The n-th context of the data: (3, image_size, image_size) uint8, oldest first.

        Raises:
            Mistake: there are no data, or a file cannot be read.
        """
        if not self.episodes or self.walks is None:
            raise Mistake("the walks that the model was trained on are not on this machine; begin with a picture")
        random, walks = Random(number), self.walks
        path = self.episodes[random.randrange(len(self.episodes))]
        index = index_video(path)
        first = random.randrange(max(1, len(index) - (walks.context - 1) * walks.frame_step))
        frames = [min(first + n * walks.frame_step, len(index) - 1) for n in range(walks.context)]
        return [square(frame, self.model.image_size) for frame in VideoReader().read(str(path), index, frames)]


def episodes_of(walks: Walks | None) -> tuple[Path, ...]:
    """Files of the walks that the model was validated on, if they are on this machine."""
    if walks is None or walks.val is None:
        return ()
    try:
        return tuple(find_files(walks.val, VIDEO_SUFFIXES, "data.val"))
    except Mistake:
        return ()


def truth_of(name: str, walks: Walks | None, steering: Steering | None, image_size: int) -> Callable[[], Truth] | None:
    """Who knows the truth of a model's walks.

    Args:
        name: `crafter`, `vizdoom`, `none`, or `auto`: Crafter for walks that were told from tile to tile, ViZDoom for
            moves, if they are installed.
        walks: that the model was trained on.
        steering: what keys do.
        image_size: side of the model's pictures in pixels.

    Raises:
        Mistake: one that was named is not installed, or does not fit the steering file.
    """
    if name == "none" or walks is None or steering is None:
        return None
    kind = ("crafter" if walks.actions == "told" else "vizdoom") if name == "auto" else name
    try:
        with from_extra("demo", f"the truth of {kind}"):
            if kind == "crafter":
                from lit_mm.play import truth_crafter

                truth_crafter.check(steering)
                truth_crafter.map_of(0)  # it takes seconds, and every player begins there
                return lambda: truth_crafter.CrafterTruth(image_size)
            import vizdoom  # noqa: F401  # it is imported where a game starts, and missed there

            from lit_mm.play import truth_vizdoom

            return lambda: truth_vizdoom.ViZDoomTruth(image_size, walks)
    except Mistake:
        if name == "auto":
            return None
        raise


def as_array(picture: Tensor) -> np.ndarray:
    """(3, height, width) uint8 as (height, width, 3)."""
    return picture.permute(1, 2, 0).numpy()

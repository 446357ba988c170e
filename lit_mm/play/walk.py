"""A walk: frames that are imagined one by one, each from the last few and what was done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from data_modules.reading.pictures import as_picture
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.roll_out import action_behind, as_latents, shown, step_seed
from lit_mm.generation.windows import Windows
from lit_mm.mistake import Mistake
from lit_mm.play.settings import Settings
from lit_mm.sequence import Document, Segment

LONGEST = 200  # frames of a stretch; the next one begins with what is seen then
# What is kept for going back and for saving: whole stretches, the oldest of which are forgotten.
MOST_FRAMES, MOST_STRETCHES = 400, 50


@dataclass(frozen=True)
class Moment:
    """A frame.

    Attributes:
        latents: as rows keep it.
        picture: (image_size, image_size, 3) uint8.
        action: the text that led there; none of a frame that a stretch begins with.
        truth: what is truly seen then, (height, width, 3) uint8, where that is known.
    """

    latents: Tensor
    picture: np.ndarray
    action: str = ""
    truth: np.ndarray | None = None


@dataclass(frozen=True)
class Stretch:
    """A part of a walk that one prompt of `predict` asks for again.

    Attributes:
        beginning: the context, oldest first, read from pictures.
        settings: of every frame.
        moments: that followed.
    """

    beginning: tuple[Moment, ...]
    settings: Settings
    moments: list[Moment] = field(default_factory=list)


class Walk:
    """Steps of one player; only one thread at a time may ask.

    Every stretch is drawn from pictures, as `predict` draws it from files: where settings change, or a stretch has
    become too long, what is seen then is read again as pictures, and a new one begins.

    Args:
        decoder: the model.
        context: frames that it reads.
        row_length: most positions.
        settings: of the first frames.

    Attributes:
        stretches: the newest ones, oldest first.
        number: of the newest frame, counted from the beginning.
    """

    def __init__(self, decoder: Decoder, context: int, row_length: int, settings: Settings) -> None:
        self.decoder, self.context, self.row_length, self.settings = decoder, context, row_length, settings
        self.stretches: deque[Stretch] = deque()
        self.number = 0
        self._windows = {guided: Windows(decoder, 1, guided) for guided in (False, True)}

    @property
    def begun(self) -> bool:
        """Whether there is anything to be seen."""
        return bool(self.stretches)

    @property
    def now(self) -> Moment:
        """The newest frame."""
        stretch = self.stretches[-1]
        return stretch.moments[-1] if stretch.moments else stretch.beginning[-1]

    @property
    def length(self) -> int:
        """Frames that were imagined and can be undone."""
        return sum(len(stretch.moments) for stretch in self.stretches)

    def begin(self, pictures: Sequence[Tensor], truths: Sequence[np.ndarray | None]) -> None:
        """Forget all, and see these pictures.

        Args:
            pictures: (3, image_size, image_size) uint8, oldest first; the oldest is repeated where they are too few.
            truths: beside each.
        """
        self.stretches.clear()
        self.number = 0
        missing = self.context - len(pictures)
        self._begin([*[pictures[0]] * missing, *pictures], [*[truths[0]] * missing, *truths])

    def go_on_from_truth(self) -> None:
        """What is truly seen becomes what was seen.

        Raises:
            Mistake: nobody knows what that is.
        """
        seen = [moment.truth for moment in self._seen()]
        if any(true is None for true in seen):
            raise Mistake("nobody knows what is true here; begin at another place, where a simulator does")
        pictures = [as_picture(true, self.decoder.vision.image_size) for true in seen if true is not None]
        self._begin(pictures, seen)

    def change(self, settings: Settings) -> None:
        """Draw by other settings from here on; a seed or a slider begins a stretch."""
        drawn = settings.prompt != self.settings.prompt
        self.settings = settings
        if self.begun and drawn:
            self._go_on()

    def step(self, action: str, truth: Callable[[], np.ndarray | None]) -> Generator[None, None, Moment]:
        """Imagine the next frame; yields after each step of its drawing, so that others get their turn.

        Args:
            action: what is done, as a text.
            truth: gives what is truly seen then; asked once the frame is there.

        Raises:
            Mistake: the action is too long for the model.
        """
        if len(self.stretches[-1].moments) == LONGEST:
            self._go_on()
        told = action_behind(self.decoder.tokenizer, action)
        window = self.read()
        tokens = self.decoder.vision.num_tokens
        length = Document((*window, told), "walk").length(tokens) + tokens + 1
        if length > self.row_length:
            raise Mistake(
                f"the sentence is too long: with it a frame takes {length} positions, but the model was trained on "
                f"rows of {self.row_length} (data.loader.row_length); make it shorter"
            )
        stretch, sampler = self.stretches[-1], self.settings.sampler
        windows = self._windows[sampler.guidance_scale != 1.0]
        windows.read([0], [[*window, told]])
        seed = step_seed(self.settings.seed, len(stretch.moments))
        newest: deque[Tensor] = deque(maxlen=1)
        for drawn in windows.draw([0], [seed], sampler):
            newest.append(drawn)
            yield
        kept = self.decoder.read_again(newest[0])
        moment = Moment(kept[0], pixels(self.decoder.decode(kept)[0]), action, truth())
        stretch.moments.append(moment)
        self.number += 1
        return moment

    def read(self) -> list[Segment]:
        """Read the frames that the next one is drawn from, before it is known what is done."""
        t = self.decoder.tokenizer
        window = shown(t, [moment.latents for moment in self._seen()], [t.bos_id])
        self._windows[self.settings.sampler.guidance_scale != 1.0].read([0], [window])
        return window

    def undo(self) -> Moment:
        """Take back the newest frame, and see the one before it as it was.

        Returns:
            What was taken back.

        Raises:
            Mistake: there is none.
        """
        while len(self.stretches) > 1 and not self.stretches[-1].moments:
            self.stretches.pop()
        if not self.stretches or not self.stretches[-1].moments:
            raise Mistake("there is no frame to undo; this is where the walk began")
        taken = self.stretches[-1].moments.pop()
        self.number -= 1
        if self.stretches[-1].settings.prompt != self.settings.prompt:
            self._go_on()
        return taken

    def _seen(self) -> list[Moment]:
        """The frames of the window, oldest first."""
        stretch = self.stretches[-1]
        return [*stretch.beginning, *stretch.moments][-self.context :]

    def _go_on(self) -> None:
        """A new stretch from what is seen, its pictures being read again."""
        seen = self._seen()
        pictures = [as_picture(moment.picture, self.decoder.vision.image_size) for moment in seen]
        if not self.stretches[-1].moments:
            self.stretches.pop()
        self._begin(pictures, [moment.truth for moment in seen])

    def _begin(self, pictures: Sequence[Tensor], truths: Sequence[np.ndarray | None]) -> None:
        stacked = torch.stack(list(pictures))[-self.context :]
        (latents,) = as_latents(self.decoder, [stacked])
        seen = zip(latents, stacked, list(truths)[-self.context :], strict=True)
        self.stretches.append(Stretch(tuple(Moment(z, pixels(p), "", true) for z, p, true in seen), self.settings))
        while len(self.stretches) > MOST_STRETCHES or self.length > MOST_FRAMES:
            self.stretches.popleft()


def pixels(picture: Tensor) -> np.ndarray:
    """(3, height, width) uint8 as (height, width, 3)."""
    return picture.permute(1, 2, 0).cpu().contiguous().numpy()

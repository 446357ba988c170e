"""One player: what it asked for, what it holds, and the next bit of work for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
from torch import Tensor

from data_modules.reading.actions import sentence_text
from data_modules.reading.pictures import as_picture, read_picture
from lit_mm.mistake import Mistake
from lit_mm.play import saving
from lit_mm.play.game import Game, as_array
from lit_mm.play.outbox import Outbox
from lit_mm.play.protocol import MOST_BYTES, MOST_MEGAPIXELS, Message
from lit_mm.play.studio import describe, draw
from lit_mm.play.views import hello, png, state, view
from lit_mm.play.walk import Walk

MOST_ASKED = 32  # messages that wait for an answer
MOST_WAITING = 4 * MOST_BYTES  # of the pictures among them
MOST_TAPS = 4  # keys that were let go before a frame was drawn with them
REPEAT = 0.2  # seconds from a key's first frame to its second, so that a tap is one
RECENT = 20  # frames from which frames a second are told


class TooMuch(Exception):
    """A page asks faster than it can be answered."""


class Session:
    """See the module. `ask` and `hold` are called by the loop of the server, all else by the thread that imagines.

    Args:
        game: what is played.
        outbox: of the page.
    """

    def __init__(self, game: Game, outbox: Outbox) -> None:
        self.game, self.outbox = game, outbox
        self.walk = Walk(game.model.decoder, game.context, game.model.context, game.settings)
        self.truth = game.truth() if game.truth else None
        self.mode, self.place = "held", -1
        self._asked: deque[Message] = deque()
        self._held: tuple[str, ...] = ()
        self._taps: deque[tuple[str, ...]] = deque(maxlen=MOST_TAPS)
        self._said, self._said_left = "", 0
        self._drawn: Tensor | None = None
        self._frame: Generator[None, None, None] | None = None
        self._studio: Iterator[None] | None = None
        self._once = self._unread = self._lost = False
        self._due = self._repeats = 0.0
        self._ends: deque[float] = deque(maxlen=RECENT)
        self._asked.append(Message("hello"))

    # ---- by the server's loop

    def ask(self, message: Message) -> None:
        """Have a message answered.

        Raises:
            TooMuch: too many wait already.
        """
        if message.kind == "keys":
            self._hold(tuple(message.values["keys"]))
        elif len(self._asked) >= MOST_ASKED or _size(message, *tuple(self._asked)) > MOST_WAITING:
            raise TooMuch
        else:
            self._asked.append(message)

    @property
    def asked(self) -> bool:
        """Whether something came that was not begun yet."""
        return bool(self._asked or self._taps)

    def _hold(self, keys: tuple[str, ...]) -> None:
        new = tuple(key for key in keys if key not in self._held)
        self._held = keys
        if new:  # even if it is let go at once, a frame is drawn with it
            self._taps.append(keys)

    # ---- by the thread that imagines

    def work(self) -> float | None:
        """Do a little.

        Returns:
            Seconds until there is more to do, 0 for at once; None if only a message can bring more.
        """
        try:
            if self._studio is not None and next(self._studio, self) is self:
                self._studio = None
            if self._frame is not None:
                if next(self._frame, self) is self:
                    self._frame = None
                return 0.0
            if self._asked:
                self._answer(self._asked.popleft())
                return 0.0
            return self._go_on()
        except Mistake as error:
            self._fail(error.sentence)
            return 0.0
        except Exception:
            self._fail("something failed here; the terminal says what")
            raise

    def close(self) -> None:
        """The player has gone."""
        if self.truth is not None:
            self.truth.close()

    def _fail(self, sentence: str) -> None:
        self._frame = self._studio = None
        self._said_left, self._once, self._held = 0, False, ()
        self._taps.clear()
        self.outbox.put(Message("error", {"text": sentence}))

    def _go_on(self) -> float | None:
        """Begin a frame if one is wanted now."""
        if self.mode == "paused" or not self.walk.begun:
            self._taps.clear()
        wanted = self._once or (
            self.mode != "paused" and bool(self._held or self._taps or self._said_left or self.mode == "always")
        )
        if wanted and self.walk.begun:
            due = self._due if self._taps or self._said_left else max(self._due, self._repeats)
            wait = 0.0 if self._once else due - time.monotonic()
            if wait > 0:
                return wait if self._studio is None else 0.0
            self._frame, self._once, self._unread = self._imagine(), False, True
            return 0.0
        if wanted and self._once:
            raise Mistake("there is nothing to go on from; drop a picture here, or draw one")
        if self._unread and self.walk.begun:
            self.walk.read()
            self._unread = False
        return None if self._studio is None else 0.0

    def _imagine(self) -> Generator[None, None, None]:
        begun = time.monotonic()
        self._due = max(self._due + 1 / self.walk.settings.pace, begun)
        if self._taps:
            self._said_left = 0
        if self._said_left:
            keys: tuple[str, ...] = ()
            action, move = sentence_text([self._said]), None
        else:
            self._repeats = begun + REPEAT if self._taps else 0.0
            keys = self._taps.popleft() if self._taps else self._held
            action, move = self.game.action(keys)
        understood: bool | None = None

        def true() -> np.ndarray | None:
            nonlocal understood
            if self.truth is None or self._lost or self.walk.now.truth is None:
                return None
            seen, understood = self.truth.step(move, self._said)
            return seen

        self._said_left = max(0, self._said_left - 1)
        yield from self.walk.step(action, true)
        ended = time.monotonic()
        self._ends.append(ended)
        span = self._ends[-1] - self._ends[0]
        timing: dict[str, Any] = {
            "ms": round(1000 * (ended - begun)),
            "fps": round((len(self._ends) - 1) / span, 1) if 0 < span < 10 else 0,
            "keys": list(keys),
            "understood": understood,
        }
        self._show(timing)
        yield
        if self._held or self._said_left:  # or it is read when there is nothing else to do
            self.walk.read()
            self._unread = False

    def _show(self, more: dict[str, Any] | None = None) -> None:
        self.outbox.put(view(self.walk, self.truth, {**(more or {}), "left": self._said_left}))

    def _answer(self, message: Message) -> None:
        answers: dict[str, Callable[[Message], None]] = {
            "hello": self._hello,
            "set": self._set,
            "time": self._time,
            "say": self._say,
            "reset": self._reset,
            "picture": self._picture,
            "step": self._step,
            "undo": self._undo,
            "truth": self._to_truth,
            "draw": self._draw,
            "describe": self._describe,
            "stop": self._stop,
            "save": self._save,
        }
        try:
            answers[message.kind](message)
        except Mistake as error:  # of this message alone: a step that was asked for before is still taken
            self.outbox.put(Message("error", {"text": error.sentence}))

    def _hello(self, message: Message) -> None:
        self.outbox.put(hello(self.game, self.truth))
        if self.truth is not None or self.game.episodes:
            self._reset(Message("reset", {"to": "place" if self.truth is not None else "data"}))

    def _set(self, message: Message) -> None:
        self.walk.change(self.walk.settings.changed(message.values["values"]))
        self._ends.clear()
        self._unread = True
        self.outbox.put(state(self.walk.settings, self.mode))

    def _time(self, message: Message) -> None:
        self.mode = message.values["mode"]
        self._ends.clear()
        self.outbox.put(state(self.walk.settings, self.mode))

    def _say(self, message: Message) -> None:
        if self.game.walks is None:
            raise Mistake("this model was not trained on walks with actions; it draws and describes")
        if '"' in message.values["text"]:
            raise Mistake("a sentence with a double quote in it cannot be asked for in a prompt; leave the quote out")
        self._said, self._said_left = message.values["text"].strip(), message.values["frames"]

    def _step(self, message: Message) -> None:
        self._once = True

    def _undo(self, message: Message) -> None:
        taken = self.walk.undo()
        self._unread = True
        self._show()
        if taken.truth is not None and self.truth is not None and not self._lost and not self.truth.back():
            self._lost = True
            raise Mistake(f"{self.truth.name} cannot go back so far; what is true is not known from here on")

    def _to_truth(self, message: Message) -> None:
        self.walk.go_on_from_truth()
        self._unread = True
        self._show()

    def _reset(self, message: Message) -> None:
        to = message.values["to"]
        self.place += 1
        if to == "drawn":
            if self._drawn is None:
                raise Mistake("nothing was drawn yet; draw a picture first")
            self._begin([self._drawn], None)
        elif to == "data":
            self._begin(self.game.from_data(self.place), None)
        elif self.truth is None:
            raise Mistake("no simulator knows what is true here; begin with a picture or in the data")
        else:
            true = self.truth.begin(self.place, self.game.context)
            size = self.game.model.image_size
            self._begin([as_picture(picture, size) for picture in true], true)

    def _begin(self, pictures: list[Tensor], true: list[np.ndarray] | None) -> None:
        self._said_left, self._lost = 0, False
        self._taps.clear()
        none: list[np.ndarray | None] = [None] * len(pictures)
        self.walk.begin(pictures, [*true] if true else none)
        self._unread = True
        self._show()

    def _picture(self, message: Message) -> None:
        picture = read_picture(message.parts[0], self.game.model.image_size, "the picture", megapixels=MOST_MEGAPIXELS)
        if message.values["for"] == "walk":
            if self.game.walks is None:
                raise Mistake("this model was not trained on walks with actions; it draws and describes")
            self._begin([picture], None)
        else:
            self._drawn = picture
            self.outbox.put(Message("drawn", {"done": True, "step": 0, "steps": 0}, (png(as_array(picture)),)))

    def _draw(self, message: Message) -> None:
        def keep(picture: Tensor) -> None:
            self._drawn = picture

        settings = self.game.drawing.changed(message.values["values"])
        self._studio = draw(self.game.model, message.values["text"], settings, self.outbox, keep)

    def _describe(self, message: Message) -> None:
        if self._drawn is None:
            raise Mistake("there is no picture to describe; drop one here, or draw one")
        self._studio = describe(self.game.model, self._drawn, message.values["text"], self.outbox)

    def _stop(self, message: Message) -> None:
        self._studio, self._said_left = None, 0

    def _save(self, message: Message) -> None:
        self.outbox.put(Message("saved", {"name": "walk.zip"}, (saving.archive(self.walk, self.game.name),)))


def _size(*messages: Message) -> int:
    return sum(len(part) for message in messages for part in message.parts)

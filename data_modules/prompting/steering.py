"""How to walk, written briefly: `W*4 A D LEFT*2` becomes the action texts that the model was trained on."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_modules.reading.actions import PREFIX, format_action, sentence_text
from lit_mm.mistake import MissingFile, Mistake

AXES = ("dx", "dy", "dyaw")
_STEP = re.compile(r'\s*(?:"(?P<sentence>[^"]*)"|(?P<move>[^\s"*]+))(?:\*(?P<times>[^\s"]+))?(?=\s|$)')
_GRAMMAR = (
    'keys (W*4), triples dx,dy,dyaw (1.0,0,0.2*3) and sentences in double quotes ("look up"*3), with spaces between'
)

Move = tuple[float, float, float]


@dataclass(frozen=True)
class Steering:
    """What keys do.

    Args:
        path: of the file, for errors.
        rel_t: of one step, as a share of the data's horizon.
        keys: (dx, dy, dyaw) of one step with the key held, in the data's units; left is positive.
        limits: least and greatest value of dx, dy and dyaw.
    """

    path: str
    rel_t: float
    keys: dict[str, Move]
    limits: dict[str, tuple[float, float]]

    @classmethod
    def load(cls, path: str) -> Steering:
        """Read a YAML file with `rel_t`, `keys` (such as `W: {dx: 1.4}`) and `limits` (`dx: [-2, 2]` and so on).

        Raises:
            MissingFile: there is no such file.
            Mistake: it holds something else.
        """
        if not Path(path).is_file():
            raise MissingFile(f"data.steering: no file '{path}'; give a YAML file such as configs/steering/game.yaml")
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise Mistake(f"data.steering: '{path}' is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict) or content.keys() != {"rel_t", "keys", "limits"}:
            raise Mistake(f"data.steering: '{path}' has to hold 'rel_t', 'keys' and 'limits', and nothing else")
        rel_t = _number(content["rel_t"])
        if rel_t is None or not 0 < rel_t <= 1:
            raise Mistake(f"data.steering: rel_t of '{path}' is {content['rel_t']!r}; give a share above 0, at most 1")
        limits = _limits(path, content["limits"])
        steering = cls(path, rel_t, _keys(path, content["keys"]), limits)
        for key, move in steering.keys.items():
            if problem := steering._outside(move):
                raise Mistake(f"data.steering: key '{key}' of '{path}' has {problem}")
        return steering

    def _outside(self, move: Move) -> str | None:
        for axis, value in zip(AXES, move, strict=True):
            low, high = self.limits[axis]
            if not low <= value <= high:
                return f"{axis} {value:g}, outside the limits {low:g} to {high:g} of '{self.path}'"
        return None

    def text(self, move: str) -> str:
        """The action of one step: a key, several joined by `+`, or a triple `dx,dy,dyaw`.

        Raises:
            Mistake: there is no such key, or it moves too far.
        """
        return format_action(*self.move(move), self.rel_t)

    def move(self, move: str) -> Move:
        """The same step as dx, dy and dyaw."""
        axes = self._triple(move) if "," in move else self._pressed(move)
        if problem := self._outside(axes):
            raise Mistake(f"'{move}' has {problem}")
        return axes

    def _triple(self, move: str) -> Move:
        values = [_number(value) for value in move.split(",")]
        if len(values) != 3 or any(v is None for v in values):
            raise Mistake(f"'{move}' is no triple; write dx,dy,dyaw without spaces, such as 1.0,0,0.2")
        dx, dy, dyaw = (v for v in values if v is not None)
        return dx, dy, dyaw

    def _pressed(self, move: str) -> Move:
        pressed = move.split("+")
        for key in pressed:
            if key not in self.keys:
                raise Mistake(f"unknown key '{key}'; '{self.path}' has {', '.join(self.keys)}")
        dx, dy, dyaw = (sum(self.keys[key][axis] for key in pressed) for axis in range(3))
        return dx, dy, dyaw


def action_texts(actions: Any, steering: Steering | None) -> tuple[str, ...]:
    """One text per frame to draw.

    Args:
        actions: a list of full texts, one text that begins with `action:`, or a sequence such as
            `W*4 1.0,0,0.2*3 "get out of the shadow!"*3`. Its sentences are written like the words of
            `ActionVideoSource`: `action: get out of the shadow!`.
        steering: what keys and triples mean; without it a sequence has sentences alone.

    Raises:
        Mistake: what is wrong with them.
    """
    if isinstance(actions, list):
        wrong = [text for text in actions if not isinstance(text, str) or not text.strip()]
        if wrong or not actions:
            found = repr(wrong[0]) if wrong else "none"
            raise Mistake(f"'actions' has to be a list of texts, one per frame, but there is {found} in it")
        return tuple(actions)
    if not isinstance(actions, str) or not actions.strip():
        raise Mistake(f"'actions' is {actions!r}; give a list of texts, or a sequence of {_GRAMMAR}")
    if actions.startswith(PREFIX.rstrip()):
        return (actions,)
    texts: list[str] = []
    offset = 0
    while rest := actions[offset:].strip():
        step = _STEP.match(actions, offset)
        if step is None:
            raise Mistake(f"cannot read the actions from '{rest}' on; write {_GRAMMAR}")
        texts += [_one(step, steering)] * _times(step)
        offset = step.end()
    return tuple(texts)


def _one(step: re.Match[str], steering: Steering | None) -> str:
    sentence, move = step["sentence"], step["move"]
    if sentence is not None:
        if not sentence.strip():
            raise Mistake('a sentence of the actions is empty; write one between double quotes, such as "look up"*3')
        return sentence if sentence.startswith(PREFIX.rstrip()) else sentence_text([sentence.strip()])
    if steering is None:
        raise Mistake(
            f"nobody says what the action '{move}' means; set data.steering, for instance to configs/steering/game.yaml"
        )
    return steering.text(move)


def _times(step: re.Match[str]) -> int:
    times = step["times"]
    if times is None:
        return 1
    if not times.isdecimal() or not 1 <= int(times) <= 10_000:
        raise Mistake(f"'{step[0].strip()}' is held for '{times}' frames; give a whole number from 1 to 10000")
    return int(times)


def _keys(path: str, given: Any) -> dict[str, Move]:
    keys: dict[str, Move] = {}
    for key, move in (given if isinstance(given, dict) else {}).items():
        name = str(key)
        if re.search(r'[\s"*+,]', name) or not name:
            raise Mistake(f"data.steering: '{path}' names a key '{name}'; use no spaces, quotes, '*', '+' or ','")
        values = {axis: _number(value) for axis, value in move.items()} if isinstance(move, dict) else {}
        if not values or not values.keys() <= set(AXES) or None in values.values():
            raise Mistake(f"data.steering: key '{name}' of '{path}' is {move!r}; give numbers, such as {{dx: 1.4}}")
        keys[name] = (values.get("dx") or 0.0, values.get("dy") or 0.0, values.get("dyaw") or 0.0)
    if not keys:
        raise Mistake(f"data.steering: 'keys' of '{path}' is {given!r}; give at least one, such as W: {{dx: 1.4}}")
    return keys


def _limits(path: str, given: Any) -> dict[str, tuple[float, float]]:
    limits: dict[str, tuple[float, float]] = {}
    for axis in AXES:
        pair = given.get(axis) if isinstance(given, dict) else None
        low, high = (_number(value) for value in pair) if isinstance(pair, list) and len(pair) == 2 else (None, None)
        if low is None or high is None or low > high:
            raise Mistake(
                f"data.steering: limits of {axis} in '{path}' are {pair!r}; give two numbers, such as [-2, 2]"
            )
        limits[axis] = (low, high)
    return limits


def _number(value: Any) -> float | None:
    """A finite number, or None; YAML reads 1e-3 as a text."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None

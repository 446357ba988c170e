"""Actions written by a template that names columns: `action: grip={gripper:+.2f}, {keys}`."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from lit_mm.mistake import Mistake

How = Literal["last", "first", "sum", "mean", "change", "there"]
OF_STATES: tuple[How, ...] = ("change", "there")
OF_ONE: tuple[How, ...] = ("first", "there")  # frame, which texts have too
MOVES = ("dx", "dy", "dyaw")  # written as `actions` says
OF_TIME = ("rel_t", "seconds", "steps")


@dataclass(frozen=True)
class Field:
    """A value in a template.

    Args:
        column: of the table, or one of `MOVES` and `OF_TIME`.
        how: of numbers, what is made of the rows from the last context frame to the target.
        spec: Python's format of a number; of texts none.
    """

    column: str
    how: How
    spec: str

    @property
    def is_text(self) -> bool:
        """Whether it is written as it is."""
        return not self.spec


@dataclass(frozen=True)
class ActionTemplate:
    """The text of an action.

    A field `{name:+.2f}` is a number. `name` is a column, or `name[2]` the third number of one that holds lists; the
    value is that of the last step before the target. `{name.sum:+.2f}` adds up the steps, `.mean` averages them,
    `.first` is that of the first step; of what states are, `.there` is the value at the target, and `.change` that
    less the value at the last context frame. `{dx}`, `{dy}` and `{dyaw}` are the move, `{rel_t}` the share of the
    horizon, `{seconds}` and `{steps}` the time to the target; these have the formats of `action_text` where they have
    none. A field without a format, `{keys}`, is a text; those of several steps are joined by `, then `, where
    `{task.first}` and `{task.there}` are one of them.

    Args:
        text: the template.

    Raises:
        Mistake: it is no template.
    """

    text: str

    def __post_init__(self) -> None:
        if not any(field for _, field in self.parts):
            raise Mistake(f"text: '{self.text}' names no column; write fields such as {{gripper:+.2f}} or {{keys}}")

    @cached_property
    def parts(self) -> list[tuple[str, Field | None]]:
        """Words, and the field behind them."""
        try:
            parsed = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise Mistake(f"text: '{self.text}' is no template: {error}") from error
        return [(words, None if name is None else self._field(name, spec or "")) for words, name, spec, _ in parsed]

    def _field(self, name: str, spec: str) -> Field:
        column, dot, how = name.rpartition(".")
        if not dot or how not in get_args(How):
            column, how = name, "last"
        if not column:
            raise Mistake(f"text: '{self.text}' has a field without a name; write {{gripper:+.2f}}")
        if column in (*MOVES, *OF_TIME) and not spec:
            spec = "d" if column == "steps" else "+.3f"
        if dot and how not in ("last", *OF_ONE) and not spec:
            raise Mistake(f"text: '{{{name}}}' needs the format of a number, such as {{{name}:+.2f}}")
        try:
            format(1, spec) if column == "steps" else format(1.0, spec)
        except ValueError as error:
            raise Mistake(f"text: '{{{name}:{spec}}}' is no format of a number: {error}") from error
        return Field(column, how, spec)  # type: ignore[arg-type]

    @property
    def fields(self) -> list[Field]:
        """All fields that are columns."""
        return [field for _, field in self.parts if field and field.column not in (*MOVES, *OF_TIME)]

    @property
    def has_moves(self) -> bool:
        """Whether it writes dx, dy or dyaw."""
        return any(field and field.column in MOVES for _, field in self.parts)

    def of_steps(self) -> tuple[str, ...]:
        """Columns that are said of steps, so that the last frame needs none."""
        of_states = {field.column for field in self.fields if field.how in OF_STATES}
        return tuple({field.column: None for field in self.fields if field.column not in of_states})

    def write(
        self, columns: Mapping[str, Sequence[Any]], start: int, stop: int, others: Mapping[str, float | int]
    ) -> str:
        """The text of an action.

        Args:
            columns: values of every frame, by name.
            start: number of the last context frame.
            stop: number of the target.
            others: values of `MOVES` and `OF_TIME`.
        """
        written = []
        for words, field in self.parts:
            written.append(words)
            if field is None:
                continue
            if field.column in others:
                written.append(_number(others[field.column], field.spec))
            elif field.is_text:
                written.append(_text(columns[field.column], field.how, start, stop))
            else:
                written.append(_number(_made_of(columns[field.column], field.how, start, stop), field.spec))
        return "".join(written)


def _text(values: Sequence[str], how: How, start: int, stop: int) -> str:
    if how in OF_ONE:
        return values[start if how == "first" else stop]
    return ", then ".join(values[start:stop])


def _made_of(values: Sequence[float], how: How, start: int, stop: int) -> float:
    if how == "there":
        return values[stop]
    if how == "change":
        return values[stop] - values[start]
    steps = np.asarray(values[start:stop])
    if how in ("sum", "mean"):
        return float(steps.sum() if how == "sum" else steps.mean())
    return float(steps[0] if how == "first" else steps[-1])


def _number(value: float | int, spec: str) -> str:
    """As a format says; what is rounded to nothing has one spelling, without a minus."""
    text = format(value, spec)
    return format(abs(value), spec) if value < 0 and not any(digit in text for digit in "123456789") else text

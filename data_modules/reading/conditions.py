"""Conditions on numbers that come with pairs, such as `clip_score > 0.28`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lit_mm.mistake import Mistake

SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_WRITTEN = re.compile(rf"\s*([^\s<>=!]+)\s*({'|'.join(SIGNS)})\s*(\S+)\s*")


@dataclass(frozen=True)
class Condition:
    """One of them.

    Args:
        name: of the number: a column, or keys of a JSON object with dots between them.
        sign: one of `SIGNS`.
        number: what it is compared with.
    """

    name: str
    sign: str
    number: float

    @classmethod
    def parse(cls, text: str, key: str) -> Condition:
        """Read a condition.

        Raises:
            Mistake: it is none; `key` is that of the YAML.
        """
        found = _WRITTEN.fullmatch(text)
        try:
            return cls(found[1], found[2], float(found[3]))  # type: ignore[index]
        except (TypeError, ValueError) as error:
            raise Mistake(f"{key}: '{text}' is no condition; write such as clip_score > 0.28") from error

    def holds(self, value: Any) -> bool | None:
        """Whether it holds of a value; None of what is no number."""
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                return None
        if not isinstance(value, int | float) or math.isnan(value):
            return None
        return SIGNS[self.sign](value, self.number)

    def value_in(self, entry: Mapping[str, Any]) -> Any:
        """The value of its name in an object."""
        if self.name in entry:
            return entry[self.name]
        value: Any = entry
        for part in self.name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

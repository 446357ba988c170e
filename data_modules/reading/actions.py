"""Actions, written as the text that the model reads: as numbers, or in words.

Axes: x and y are the map's, the angle counts counter-clockwise from the x axis, in degrees. An action is seen by who
moves: dx is forward, dy is to the left, dyaw turns to the left; so a step forward is `dx > 0`, a turn left `dyaw > 0`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

Actions = Literal["moves", "told"]
PREFIX = "action: "


class Pose(NamedTuple):
    """Position in map units, heading in degrees counter-clockwise from the x axis."""

    x: float
    y: float
    angle: float


def displacement(pose_from: Pose, pose_to: Pose) -> tuple[float, float, float]:
    """Forward and left in map units, turn in radians of [-pi, pi): `pose_to` seen from `pose_from`."""
    east, north = pose_to.x - pose_from.x, pose_to.y - pose_from.y
    heading = math.radians(pose_from.angle)
    cos, sin = math.cos(heading), math.sin(heading)
    turn = math.radians((pose_to.angle - pose_from.angle + 180.0) % 360.0 - 180.0)
    return cos * east + sin * north, cos * north - sin * east, turn


def action_text(pose_from: Pose, pose_to: Pose, rel_t: float, unit: float = 1.0) -> str:
    """An action as text (paper §5): `action: dx=+1.338, dy=-0.659, dyaw=+0.123, rel_t=+0.125`.

    Fields, signs and decimals of dx and dy are the paper's; units, and how dyaw and rel_t are written, are ours: the
    paper does not say.

    Args:
        pose_from: pose at the last context frame.
        pose_to: pose at the frame to predict.
        rel_t: how far ahead that frame is, as a share of the longest prediction, in (0, 1].
        unit: map units that count as 1.0 of dx and dy; 1.0 keeps metres as metres.
    """
    dx, dy, dyaw = displacement(pose_from, pose_to)
    return format_action(dx / unit, dy / unit, dyaw, rel_t)


def format_action(dx: float, dy: float, dyaw: float, rel_t: float) -> str:
    """The same text of an action that is known in the data's units; see `action_text`."""
    fields = {"dx": dx, "dy": dy, "dyaw": dyaw, "rel_t": rel_t}
    # Adding 0.0 turns a rounded -0.0 into +0.0, so that standing still has one spelling.
    return PREFIX + ", ".join(f"{name}={round(value, 3) + 0.0:+.3f}" for name, value in fields.items())


def sentence_text(sentences: Iterable[str]) -> str:
    """An action in words, one sentence for each step: `action: move left, then wait` (ours: the paper does not say)."""
    return PREFIX + ", then ".join(sentences)

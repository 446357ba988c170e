"""Action text against a rotation matrix written out by hand, and against poses of a real game."""

from __future__ import annotations

import re

import numpy as np
import pytest

from data_modules.reading.actions import Pose, action_text, displacement

FORM = re.compile(r"action: dx=([+-]\d+\.\d{3}), dy=([+-]\d+\.\d{3}), dyaw=([+-]\d+\.\d{3}), rel_t=([+-]\d+\.\d{3})\Z")


def numbers(text: str) -> list[float]:
    match = FORM.match(text)
    assert match, text
    return [float(g) for g in match.groups()]


def test_against_a_rotation_matrix() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = (Pose(*rng.uniform(-500, 500, 2), rng.uniform(-720, 720)) for _ in range(2))
        theta = np.deg2rad(a.angle)
        body_to_map = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
        forward_left = np.linalg.solve(body_to_map, [b.x - a.x, b.y - a.y])
        turn = np.angle(np.exp(1j * np.deg2rad(b.angle - a.angle)))
        assert displacement(a, b) == pytest.approx((*forward_left, turn), abs=1e-9)
        assert numbers(action_text(a, b, 0.25, 20.0)) == pytest.approx([*forward_left / 20, turn, 0.25], abs=5.01e-4)


def test_the_papers_form() -> None:
    assert action_text(Pose(0, 0, 0), Pose(1.338, -0.659, np.rad2deg(0.1234)), 0.125) == (
        "action: dx=+1.338, dy=-0.659, dyaw=+0.123, rel_t=+0.125"
    )


def test_standing_still_has_one_spelling() -> None:
    still = "action: dx=+0.000, dy=+0.000, dyaw=+0.000, rel_t=+1.000"
    assert action_text(Pose(3, 4, 90), Pose(3 - 1e-9, 4 - 1e-9, 90 - 1e-9), 1.0) == still
    assert action_text(Pose(3, 4, -270), Pose(3, 4, 90), 1.0) == still


def test_turns_go_the_short_way() -> None:
    assert displacement(Pose(0, 0, 350), Pose(0, 0, 10))[2] == pytest.approx(np.deg2rad(20))
    assert displacement(Pose(0, 0, 10), Pose(0, 0, 350))[2] == pytest.approx(np.deg2rad(-20))
    assert displacement(Pose(0, 0, 0), Pose(0, 0, 180))[2] == pytest.approx(-np.pi)


def test_forward_left_and_turns_of_a_real_game() -> None:
    """Consecutive poses that ViZDoom reported on map 1 of Freedoom 2 while W and LEFT were held, then W alone."""
    before = Pose(-192.0, -1024.0, 189.84375004420144)
    turned = Pose(-198.9142608642578, -1025.653091430664, 196.87500004583853)
    further = Pose(-207.97869873046875, -1029.6766204833984, 209.17968754870344)
    for a, b in [(before, turned), (turned, further), (before, further)]:
        dx, _, dyaw = displacement(a, b)
        assert dx > 5, "W moves forward"
        assert dyaw > 0.1, "LEFT turns counter-clockwise"
    assert displacement(before, further)[1] > 0, "a curve to the left ends on the left"
    # A step to the side, with the heading kept: A is left.
    assert displacement(Pose(0, 0, 90), Pose(-7, 0, 90)) == pytest.approx((0, 7, 0))

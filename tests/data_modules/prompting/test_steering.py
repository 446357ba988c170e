"""Sequences of keys against texts that `action_text` writes for poses that move so."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from data_modules.prompting.steering import Steering, action_texts
from data_modules.reading.actions import Pose, action_text, displacement
from lit_mm.mistake import MissingFile, Mistake
from tests.helpers.program import ROOT

GAME = ROOT / "configs/steering/game.yaml"
TURNING = ROOT / "configs/steering/turning.yaml"
EPISODES = ROOT / "data/tiny/action_video/train"


def moved(dx: float = 0.0, dy: float = 0.0, dyaw: float = 0.0) -> str:
    """What the data says of a step so far, in units of 32, from a pose that looks north-west."""
    heading = math.radians(135.0)
    east = 32 * (math.cos(heading) * dx - math.sin(heading) * dy)
    north = 32 * (math.sin(heading) * dx + math.cos(heading) * dy)
    before = Pose(100.0, -50.0, 135.0)
    return action_text(before, Pose(100.0 + east, -50.0 + north, 135.0 + math.degrees(dyaw)), 0.125, 32.0)


FORWARD, TURN = moved(dx=0.66), moved(dyaw=0.241)


@pytest.mark.parametrize(
    ("sequence", "texts"),
    [
        ("W", [FORWARD]),
        ("W*2 A  D", [FORWARD, FORWARD, moved(dy=0.567), moved(dy=-0.529)]),
        ("S RIGHT*2\nLEFT", [moved(dx=-0.481), moved(dyaw=-0.242), moved(dyaw=-0.242), TURN]),
        ("W+LEFT*2", [moved(dx=0.66, dyaw=0.241)] * 2),
        ("1.0,0,0.2*3", [moved(dx=1.0, dyaw=0.2)] * 3),
        ("-.5,1e-1,-0.2", [moved(-0.5, 0.1, -0.2)]),
        ('"get out of the shadow!"*3 W', ["action: get out of the shadow!"] * 3 + [FORWARD]),
        ('"W*4" "a, b" "action: dx=+1"', ["action: W*4", "action: a, b", "action: dx=+1"]),
        ("action: dx=+1", ["action: dx=+1"]),
        (["action: dx=+1", "W", "go left"], ["action: dx=+1", "W", "go left"]),
    ],
    ids=str,
)
def test_sequences(sequence: str | list[str], texts: list[str]) -> None:
    assert action_texts(sequence, Steering.load(str(GAME))) == tuple(texts)


def test_another_file_gives_keys_another_meaning() -> None:
    assert action_texts("A D W", Steering.load(str(TURNING))) == (TURN, moved(dyaw=-0.242), FORWARD)


def test_without_a_file_there_are_texts_and_sentences() -> None:
    assert action_texts('"look up"*2', None) == ("action: look up",) * 2
    assert action_texts(["look up", "action: dx=+1"], None) == ("look up", "action: dx=+1")
    for sequence, word in (("W*2", "'W'"), ("1,0,0", "'1,0,0'")):
        with pytest.raises(Mistake, match=f"{word} means; set data.steering"):
            action_texts(sequence, None)


@pytest.mark.parametrize(
    ("actions", "sentence"),
    [
        ("W Q*2", "unknown key 'Q'; .*game.yaml' has W, S, A, D, LEFT, RIGHT"),
        ("w", "unknown key 'w'"),
        ("W+Q", "unknown key 'Q'"),
        ("3,0,0", "'3,0,0' has dx 3, outside the limits -0.93 to 1.25 of .*game.yaml"),
        ("W+W", r"'W\+W' has dx 1.32, outside the limits"),
        ("0,0,-0.5", "dyaw -0.5, outside the limits -0.246 to 0.246"),
        ("0,nan,0", "'0,nan,0' is no triple"),
        ("1,2", "'1,2' is no triple; write dx,dy,dyaw"),
        ("W*0", r"'W\*0' is held for '0' frames; give a whole number"),
        ("W*two", "held for 'two' frames"),
        ('W "go', "cannot read the actions from '\"go' on"),
        ('"go"W', "cannot read the actions from"),
        ('""', "a sentence of the actions is empty"),
        ("", "'actions' is ''; give a list of texts, or a sequence"),
        (None, "'actions' is None"),
        ([], "has to be a list of texts"),
        (["go", 3], "there is 3 in it"),
    ],
    ids=str,
)
def test_mistakes_in_a_sequence(actions: object, sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        action_texts(actions, Steering.load(str(GAME)))


LIMITS = "limits: {dx: [-1, 1], dy: [-1, 1], dyaw: [-1, 1]}\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("- W", "has to hold 'rel_t', 'keys' and 'limits'"),
        ("a: [", "is not YAML"),
        (f"rel_t: 2\nkeys: {{W: {{dx: 1}}}}\n{LIMITS}", "rel_t of .* is 2; give a share"),
        (f"rel_t: 0.25\nkeys: {{W: 1}}\n{LIMITS}", "key 'W' of .* is 1; give numbers"),
        (f"rel_t: 0.25\nkeys: {{W: {{dz: 1}}}}\n{LIMITS}", "key 'W' of .*dz"),
        (f"rel_t: 0.25\nkeys: {{W: {{dx: 1.5}}}}\n{LIMITS}", "key 'W' of .* has dx 1.5, outside the limits -1 to 1"),
        (f"rel_t: 0.25\nkeys: {{'W*': {{dx: 1}}}}\n{LIMITS}", r"names a key 'W\*'"),
        (f"rel_t: 0.25\nkeys: {{}}\n{LIMITS}", "'keys' of .* give at least one"),
        ("rel_t: 0.25\nkeys: {W: {dx: 1}}\nlimits: {dx: [-2, 2], dy: [1, 0]}", "limits of dy .* two numbers"),
    ],
)
def test_mistakes_in_the_file(content: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(content)
    with pytest.raises(Mistake, match=sentence):
        Steering.load(str(file))
    with pytest.raises(MissingFile, match=r"no file 'nowhere.yaml'"):
        Steering.load("nowhere.yaml")


def test_keys_do_what_they_did_in_the_game() -> None:
    """The axis that each key is for, on average over the steps that held it alone; measured here once more."""
    steps: dict[str, list[tuple[float, float, float]]] = {}
    for file in sorted(EPISODES.glob("*.csv")):
        with file.open() as table:
            rows = list(csv.DictReader(table))
        poses = [Pose(*(float(row[name]) for name in ("x", "y", "angle"))) for row in rows]
        for i in range(1, len(rows) - 1):
            if rows[i - 1]["keys"] == rows[i]["keys"]:
                steps.setdefault(rows[i]["keys"], []).append(displacement(poses[i], poses[i + 1]))
    for key, move in Steering.load(str(GAME)).keys.items():
        axis = int(np.argmax(np.abs(move)))
        mean = np.mean(steps[key], axis=0) / [32, 32, 1]
        assert move[axis] == pytest.approx(mean[axis], abs=1e-3)

"""The simulators beside the model do what keys say, go back exactly, and know what differs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_modules.prompting.steering import Steering
from lit_mm.lab.moves import after
from lit_mm.lab.tiles import read_picture
from lit_mm.mistake import Mistake
from lit_mm.play import truth_crafter
from lit_mm.play.game import truth_of
from lit_mm.play.trained_on import Walks
from lit_mm.play.truth import Truth, blocks_that_differ
from lit_mm.play.truth_crafter import CrafterTruth, meant
from lit_mm.play.truth_vizdoom import ViZDoomTruth
from tests.helpers.program import ROOT

STEERING = Steering.load(str(ROOT / "configs/steering/crafter.yaml"))
TOLD = Walks(actions="told", context=1, horizon=1)


@pytest.fixture(scope="module")
def crafter() -> CrafterTruth:
    return CrafterTruth(64)


def tiles(world: CrafterTruth, picture: np.ndarray) -> np.ndarray:
    (scene,) = read_picture(world.rules, torch.from_numpy(picture).permute(2, 0, 1)[None])
    return scene.tiles


def test_crafter_moves_as_the_laboratory_says(crafter: CrafterTruth) -> None:
    rules = crafter.rules
    for number in range(6):
        (seen,) = crafter.begin(number, 1)
        for key in ("W", "A", "S", "D", "stay"):
            (scene,) = read_picture(rules, torch.from_numpy(seen).permute(2, 0, 1)[None])
            expected, known = after(rules, scene, "" if key == "stay" else key)
            seen, understood = crafter.step(STEERING.move(key), "")
            assert understood
            assert known.sum() > 4
            assert (tiles(crafter, seen) == expected)[known].all()


def test_places_are_the_same_again_and_others_are_others(crafter: CrafterTruth) -> None:
    first, second = crafter.begin(3, 2), crafter.begin(4, 1)
    assert len(first) == 2
    assert not np.array_equal(first[-1], second[-1])
    for one, other in zip(first, crafter.begin(3, 2), strict=True):
        np.testing.assert_array_equal(one, other)


def test_going_back_in_crafter_is_exact_far_and_in_bounds(crafter: CrafterTruth) -> None:
    crafter.begin(1, 1)
    keys = [STEERING.move("WASD"[number % 4]) for number in range(truth_crafter.KEPT_EVERY + 8)]
    seen = [crafter.step(move, "")[0] for move in keys]
    for number in range(20):
        assert crafter.back()
        at = len(keys) - 1 - number
        again, _ = crafter.step(keys[at], "")
        np.testing.assert_array_equal(again, seen[at])
        assert crafter.back()
    crafter.begin(1, 1)
    assert not crafter.back()


@pytest.mark.parametrize(
    ("words", "key"),
    [("step up", "W"), ("go left", "A"), ("walk down", "S"), ("Move right.", "D"), ("wait", ""), ("sing", None)],
)
def test_sentences_of_the_data_are_understood(crafter: CrafterTruth, words: str, key: str | None) -> None:
    assert meant(crafter.rules, words) == key
    crafter.begin(0, 1)
    assert crafter.step(None, words)[1] == (key is not None)


def test_tiles_that_differ(crafter: CrafterTruth) -> None:
    (seen,) = crafter.begin(2, 1)
    changed = seen.copy()
    changed[8:16, 16:24] = crafter.rules.templates["day"][4].permute(1, 2, 0).numpy()
    expected = np.flatnonzero(tiles(crafter, changed) != tiles(crafter, seen)).tolist()
    assert crafter.differ(changed, seen) == expected
    assert set(expected) <= {8 + 2}
    assert crafter.differ(seen, seen) == []


def test_blocks_of_other_pictures_differ_where_they_do() -> None:
    one = np.zeros((64, 64, 3), np.uint8)
    other = one.copy()
    other[:8, 8:16] = 200
    other[60:, 60:] = 10
    assert blocks_that_differ(one, other) == [1]


def test_the_simulator_fits_the_model() -> None:
    assert truth_of("none", TOLD, STEERING, 64) is None
    assert truth_of("auto", None, STEERING, 64) is None
    found = truth_of("auto", TOLD, STEERING, 64)
    assert found is not None
    assert found().name == "Crafter"
    game = Steering.load(str(ROOT / "configs/steering/game.yaml"))
    with pytest.raises(Mistake, match=r"key 'W' of '.*game.yaml' moves by 0.66, 0, 0, but Crafter's player steps"):
        truth_of("crafter", TOLD, game, 64)
    assert truth_of("auto", TOLD, game, 64) is None


@pytest.mark.slow
def test_going_back_in_vizdoom_is_exact() -> None:
    truth: Truth = ViZDoomTruth(64, Walks(unit=32.0, context=4))
    try:
        begun = truth.begin(0, 4)
        assert [picture.shape for picture in begun] == [(64, 64, 3)] * 4
        moves = [(0.66, 0.0, 0.1), (0.66, 0.0, 0.1), (0.0, 0.0, 0.24)]
        seen = [truth.step(move, "")[0] for move in moves]
        assert truth.differ(seen[-1], begun[-1])
        assert truth.back()
        again, understood = truth.step(moves[-1], "")
        np.testing.assert_array_equal(again, seen[-1])
        assert understood
        assert truth.step(None, "look up")[1] is False
    finally:
        truth.close()

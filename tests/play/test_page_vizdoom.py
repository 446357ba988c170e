"""The page in a real browser, with a model of first-person play beside ViZDoom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import lit_mm
from lit_mm.play.opening import game_of
from lit_mm.play.trained_on import walks_of
from lit_mm.play.truth_vizdoom import ViZDoomTruth
from tests.helpers import browser as browsers
from tests.helpers.program import ROOT
from tests.play.browsing import pixels
from tests.play.conftest import serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browsers.missing() is not None, reason=str(browsers.missing())),
]


def test_keys_of_the_game_move_what_is_true_and_undo_takes_them_back(
    opened: Callable[..., Page], trained: Path
) -> None:
    steering = str(ROOT / "configs/steering/game.yaml")
    game = game_of(lit_mm.load(trained, "cpu"), "trained", steering, truth="vizdoom")
    walks = walks_of(trained)
    assert walks is not None
    truth = ViZDoomTruth(64, walks)
    seen = [truth.begin(0, game.context)[-1]]
    seen += [truth.step(game.action([key])[1], "")[0] for key in ("W", "LEFT")]
    truth.close()
    assert (seen[1] != seen[0]).any()
    assert (seen[2] != seen[1]).any()
    with serving(game) as served:
        page = opened(served)
        assert page.inner_text("#truth-name") == "(ViZDoom)"
        shown = [pixels(page, "true")]
        for number, key in enumerate(("w", "ArrowLeft"), 1):
            page.keyboard.press(key)
            page.wait_for_function("n => Number(document.getElementById('number').textContent) === n", arg=number)
            shown.append(pixels(page, "true"))
        for found, wanted in zip(shown, seen, strict=True):
            np.testing.assert_array_equal(found, wanted)
        page.click("#undo")
        page.wait_for_function("() => document.getElementById('number').textContent === '1'")
        np.testing.assert_array_equal(pixels(page, "true"), seen[1])

"""The page without a mouse, and whatever has the focus."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.helpers import browser as browsers
from tests.play.browsing import pixels
from tests.play.test_page import SHORE, number, wait_for_number

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browsers.missing() is not None, reason=str(browsers.missing())),
]
DROP = """([where, bytes]) => { const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
    document.querySelector(where).dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })); }"""


def test_everything_has_a_name_and_is_reached_by_tab(opened: Callable[..., Page]) -> None:
    page = opened()
    nameless = """() => [...document.querySelectorAll("button, input, textarea")].filter(e => e.offsetParent !== null &&
        !(e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.length)).map(e => e.outerHTML)"""
    for tab in ("#tab-walk", "#tab-studio"):
        page.click(tab)
        assert page.evaluate(nameless) == []
    page.click("#tab-walk")
    page.focus("#tab-walk")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.dataset.key"))
    assert {"W", "pause", "step", "sentence", "to-place", "to-truth", "walk-file", "save", "sliders-steps"} <= reached
    page.focus("[data-key=W]")
    page.keyboard.press("Enter")
    page.wait_for_function("() => Number(document.getElementById('number').textContent) >= 1")


def test_keys_move_whatever_has_the_focus_but_a_text(opened: Callable[..., Page]) -> None:
    page = opened()
    page.focus("#sliders-steps")
    page.keyboard.press("d")
    wait_for_number(page, 1)
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.getElementById('sliders-steps').value === '3'")
    page.focus("#sentence")
    page.keyboard.type("dd")
    assert page.input_value("#sentence") == "dd"
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    wait_for_number(page, 2)
    page.wait_for_timeout(500)
    assert number(page) == 2, "an arrow moves the slider, and letters are written"


def test_shortcuts_are_what_is_printed_on_the_keys(opened: Callable[..., Page]) -> None:
    """M of a French keyboard lies where others have a semicolon."""
    page = opened()
    press = "([key, code]) => document.body.dispatchEvent(new KeyboardEvent('keydown', { key, code, bubbles: true }))"
    page.evaluate(press, ["m", "Semicolon"])
    assert page.is_checked("#mark")
    page.evaluate(press, [",", "KeyM"])
    assert page.is_checked("#mark")


def test_a_slider_that_is_moved_by_a_held_key_is_told_once(opened: Callable[..., Page]) -> None:
    page = opened()
    sent = list[str]()
    page.on("websocket", lambda socket: socket.on("framesent", lambda payload: sent.append(str(payload))))
    page.reload()
    page.wait_for_function("() => document.querySelectorAll('#strip li').length >= 1")
    moves = """() => { const slider = document.getElementById("sliders-steps");
        for (let steps = 3; steps <= 50; steps++) { slider.value = steps; slider.dispatchEvent(new Event("change")); } }"""
    page.evaluate(moves)
    page.wait_for_timeout(600)
    assert [message for message in sent if '"set"' in message] == ['{"type":"set","values":{"steps":50}}']


def test_what_went_wrong_stays_while_time_goes_on_until_something_is_done(opened: Callable[..., Page]) -> None:
    page = opened()
    page.check("#always")
    page.wait_for_function("() => Number(document.getElementById('number').textContent) >= 1")
    page.evaluate(DROP, ["body", list(b"no picture")])
    page.wait_for_selector("#trouble", state="visible")
    shown = number(page)
    page.wait_for_function("shown => Number(document.getElementById('number').textContent) > shown + 1", arg=shown)
    assert "no picture" in page.inner_text("#trouble")
    page.keyboard.press("p")
    assert page.is_hidden("#trouble")


def test_a_picture_is_dropped_anywhere_on_the_page(opened: Callable[..., Page]) -> None:
    page = opened()
    before = pixels(page, "imagined")
    page.evaluate(DROP, ["header", list(SHORE.read_bytes())])
    page.wait_for_selector("#no-truth", state="visible")
    assert not np.array_equal(pixels(page, "imagined"), before)
    page.click("#tab-studio")
    page.evaluate(DROP, ["html", list(SHORE.read_bytes())])
    page.wait_for_function("() => document.getElementById('progress').textContent === 'dropped'")

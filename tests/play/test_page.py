"""The page in a real browser: what a person presses, and sees."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from lit_mm.lab.moves import moved
from lit_mm.lab.scene import Scene
from lit_mm.lab.tiles import read_picture
from lit_mm.play.game import Game
from lit_mm.play.truth_crafter import rules
from tests.helpers import browser as browsers
from tests.helpers.program import ROOT
from tests.play.browsing import begun, pixels
from tests.play.conftest import Served, serving, wait_until
from tests.play.pages import picture_in, unpacked

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browsers.missing() is not None, reason=str(browsers.missing())),
]
SHORE = ROOT / "configs/prompts/lab/shore.png"
NUMBER = "number => Number(document.getElementById('number').textContent) === number"


def scene(picture: np.ndarray) -> Scene:
    return read_picture(rules(), torch.from_numpy(picture.copy()).permute(2, 0, 1)[None])[0]


def number(page: Page) -> int:
    return int(page.inner_text("#number"))


def views(page: Page) -> list[list[np.ndarray]]:
    """The pictures of every frame that comes from now on, imagined and true, once the page is loaded again."""
    found: list[list[np.ndarray]] = []

    def received(payload: str | bytes) -> None:
        if isinstance(payload, bytes):
            message = unpacked(payload)
            if message["type"] == "view":
                found.append([picture_in(message, part) for part in range(len(message["parts"]))])

    page.on("websocket", lambda socket: socket.on("framereceived", received))
    return found


def at_rest(page: Page) -> int:
    """The number of the frame, once none came for a while."""
    while True:
        before = number(page)
        page.wait_for_timeout(1500)
        if number(page) == before:
            return before


def wait_for_number(page: Page, wanted: int) -> None:
    page.wait_for_function(NUMBER, arg=wanted)


def test_a_held_key_moves_both_screens_by_the_same_tiles(opened: Callable[..., Page]) -> None:
    page = opened()
    compared = 0
    for _ in range(2):  # places; what cannot be told from two pictures, as on a meadow, is passed over
        for key in "wasd":
            before = [scene(pixels(page, screen)) for screen in ("imagined", "true")]
            shown = number(page)
            page.keyboard.press(key)
            wait_for_number(page, shown + 1)
            after = [scene(pixels(page, screen)) for screen in ("imagined", "true")]
            steps = [moved(rules(), one, other) for one, other in zip(before, after, strict=True)]
            free = steps[1] not in (None, (0, 0))  # the model walks through what blocks the way
            if free and steps[0] is not None:
                assert steps[0] == steps[1] == rules().moves[key.upper()]
                compared += 1
            page.click("#to-truth")
            page.wait_for_function("() => document.getElementById('differ').textContent === '0'")
        page.click("#to-place")
        wait_for_number(page, 0)
    assert compared >= 2


def test_a_second_of_a_key_is_many_frames_and_both_screens_move_alike(opened: Callable[..., Page]) -> None:
    page = opened()
    sent = views(page)
    page.reload()
    begun(page)
    page.keyboard.down("d")
    page.wait_for_timeout(1000)
    page.wait_for_function("() => Number(document.getElementById('number').textContent) >= 4")
    assert "held" in page.get_attribute("[data-key=D]", "class")  # type: ignore[operator]
    page.keyboard.up("d")
    count = at_rest(page)
    assert page.inner_text("#action") == "action: dx=+0.000, dy=-1.000, dyaw=+0.000, rel_t=+1.000"
    assert float(page.inner_text("#fps")) > 0
    assert int(page.inner_text("#ms")) > 0
    assert at_rest(page) == count, "it stops when the key is let go"
    shown = [[scene(picture) for picture in pictures] for pictures in sent]
    steps = [
        [moved(rules(), one, other) for one, other in zip(*both, strict=True)]
        for both in zip(shown[:3], shown[1:4], strict=True)  # further on, what it imagines beyond the edge is its own
    ]
    assert steps == [[rules().moves["D"]] * 2] * 3


def test_undo_gives_back_the_exact_frames(opened: Callable[..., Page]) -> None:
    page = opened()
    seen = [(pixels(page, "imagined"), pixels(page, "true"))]
    for step, key in enumerate("wda", 1):
        page.keyboard.press(key)
        wait_for_number(page, step)
        seen.append((pixels(page, "imagined"), pixels(page, "true")))
    for step in (2, 1, 0):
        page.keyboard.press("Backspace")
        wait_for_number(page, step)
        np.testing.assert_array_equal(pixels(page, "imagined"), seen[step][0])
        np.testing.assert_array_equal(pixels(page, "true"), seen[step][1])
    assert page.is_disabled("#undo")
    page.keyboard.press("w")
    wait_for_number(page, 1)
    np.testing.assert_array_equal(pixels(page, "imagined"), seen[1][0])


def test_a_sentence_is_sent(opened: Callable[..., Page]) -> None:
    page = opened()
    page.fill("#sentence", "step up")
    page.fill("#frames", "2")
    page.press("#sentence", "Enter")
    wait_for_number(page, 2)
    assert page.inner_text("#action") == "action: step up"
    page.fill("#sentence", "sing a song")
    page.press("#sentence", "Enter")
    wait_for_number(page, 4)
    assert "does not understand" in page.inner_text("#action")


def test_tiles_that_differ_are_marked_on_demand(opened: Callable[..., Page]) -> None:
    page = opened()
    for step, key in enumerate("wwaa", 1):
        page.keyboard.press(key)
        wait_for_number(page, step)
    marks = "() => document.getElementById('marks').getContext('2d').getImageData(0, 0, 512, 512).data.some(v => v)"
    assert int(page.inner_text("#differ")) > 0
    assert not page.evaluate(marks)
    page.keyboard.press("m")
    assert page.evaluate(marks)
    page.keyboard.press("t")
    page.wait_for_function("() => document.getElementById('differ').textContent === '0'")
    assert not page.evaluate(marks)
    np.testing.assert_array_equal(pixels(page, "imagined"), pixels(page, "true"))


def test_reset_pause_and_single_steps_by_keys_alone(opened: Callable[..., Page]) -> None:
    page = opened()
    first = pixels(page, "imagined")
    page.keyboard.press("r")
    wait_until(lambda: not np.array_equal(pixels(page, "imagined"), first))
    assert page.locator("#strip li").count() == 1
    page.keyboard.press("p")
    page.wait_for_selector("#pause[aria-pressed=true]")
    page.keyboard.down("s")
    page.wait_for_timeout(500)
    assert number(page) == 0
    page.keyboard.press(".")
    wait_for_number(page, 1)
    page.keyboard.up("s")
    assert page.inner_text("#strip li:first-child") == "S"


def test_a_caption_is_drawn_a_picture_dropped_and_described(opened: Callable[..., Page]) -> None:
    page = opened()
    page.click("#tab-studio")
    page.fill("#caption", "You see two cows.")
    page.click("#draw button")
    page.wait_for_function("() => document.getElementById('progress').textContent.startsWith('drawn in')")
    assert pixels(page, "drawn").std() > 10
    page.set_input_files("#studio-file", SHORE)
    page.wait_for_function("() => document.getElementById('progress').textContent === 'dropped'")
    page.click("#describe button")
    page.wait_for_selector("#said[data-done=true]")
    assert page.inner_text("#said").startswith(("You", "There", "The", "It", "A", "In", "No", "Many"))
    page.click("#walk-in")
    assert page.is_visible("#walk")
    page.wait_for_selector("#no-truth", state="visible")


def test_a_picture_is_dropped_into_the_walk(opened: Callable[..., Page]) -> None:
    page = opened()
    drop = """async ([bytes]) => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "shore.png", { type: "image/png" }));
        document.getElementById("walk").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })); }"""
    page.evaluate(drop, [list(SHORE.read_bytes())])
    page.wait_for_selector("#no-truth", state="visible")
    shown = pixels(page, "imagined")
    page.evaluate(drop, [list(b"no picture")])
    page.wait_for_selector("#trouble", state="visible")
    assert "no picture" in page.inner_text("#trouble")
    np.testing.assert_array_equal(pixels(page, "imagined"), shown)
    page.keyboard.press("w")
    wait_for_number(page, 1)
    assert page.is_hidden("#trouble")


def test_a_walk_is_saved(opened: Callable[..., Page], tmp_path: Path) -> None:
    page = opened()
    page.keyboard.press("w")
    wait_for_number(page, 1)
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "walk.zip")
    names = zipfile.ZipFile(tmp_path / "walk.zip").namelist()
    assert {"walk/prompts.yaml", "walk/walk.gif", "walk/walk.shown-0.png"} <= set(names)


def test_two_browsers_play_their_own_games(opened: Callable[..., Page], served: Served) -> None:
    one, other = opened(), opened()
    one.keyboard.press("w")
    other.keyboard.press("d")
    for page in (one, other):
        wait_for_number(page, 1)
    assert served.room.engine.playing == 2
    assert one.inner_text("#action") != other.inner_text("#action")
    assert not np.array_equal(pixels(one, "imagined"), pixels(other, "imagined"))


def test_reload_in_the_middle_begins_anew(opened: Callable[..., Page], served: Served) -> None:
    page = opened()
    first = pixels(page, "imagined")
    page.keyboard.down("w")
    page.wait_for_timeout(300)
    page.reload()
    page.keyboard.up("w")
    begun(page)
    wait_for_number(page, 0)
    np.testing.assert_array_equal(pixels(page, "imagined"), first)
    page.keyboard.press("w")
    page.wait_for_function("() => Number(document.getElementById('number').textContent) >= 1")
    assert served.room.engine.playing == 1


def test_a_server_that_stops_is_told_and_found_again(opened: Callable[..., Page], game: Game) -> None:
    with serving(game) as served:
        page = opened(served)
        page.keyboard.down("w")
        page.wait_for_timeout(300)
    page.wait_for_selector("#link.gone")
    assert "the server" in page.inner_text("#trouble")
    assert page.inner_text("#link") == "stopped"
    with serving(game, served.port):
        page.wait_for_selector("#link:not(.gone)")
        page.keyboard.up("w")
        begun(page)
        wait_for_number(page, 0)
        assert page.is_hidden("#trouble")


def test_it_fits_a_phone_and_buttons_are_touched(opened: Callable[..., Page]) -> None:
    page = opened(width=360, has_touch=True, is_mobile=True, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.tap("[data-key=W]")
    page.wait_for_function("() => Number(document.getElementById('number').textContent) >= 1")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", ground)[:3])) < 60, "dark where that is preferred"

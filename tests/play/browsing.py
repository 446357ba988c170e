"""What is seen in a page that a real browser shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from playwright.sync_api import Page

PIXELS = """id => { const c = document.getElementById(id);
    return [c.width, c.height, [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]]; }"""


def begun(page: Page) -> None:
    page.wait_for_function("() => document.getElementById('imagined').width === 64")
    page.wait_for_function("() => document.querySelectorAll('#strip li').length >= 1")


def pixels(page: Page, canvas: str) -> np.ndarray:
    """(height, width, 3) uint8."""
    width, height, data = page.evaluate(PIXELS, canvas)
    return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]

"""A picture of the page that plays: it is started, walked in for some steps, and photographed in headless Chromium.

python docs/play_picture.py docs/play.png
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

from playwright.sync_api import Page, sync_playwright

WALK = "ssddwda"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
SIZE = {"width": 1000, "height": 900}


def main(out: str) -> None:
    """Start the page, play, and write the picture."""
    command = [sys.executable, "-m", "lit_mm.play", "lab", "--port=0", "--browser=false"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        assert server.stdout is not None
        address = re.search(r"http://\S+", server.stdout.readline())
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
            page = browser.new_page(viewport=SIZE, color_scheme="light")
            page.set_default_timeout(300_000)  # of a busy machine
            page.goto(address[0] if address else "")
            play(page)
            page.screenshot(path=out)
            browser.close()
    finally:
        server.terminate()
        server.wait()


def play(page: Page) -> None:
    """Walk, and mark what differs."""
    page.wait_for_selector("#strip li")
    seen = "document.getElementById('imagined').toDataURL()"
    first = page.evaluate(seen)
    page.keyboard.press("r")
    page.wait_for_function(f"first => {seen} !== first", arg=first)
    for number, key in enumerate(WALK, 1):
        page.keyboard.press(key)
        page.wait_for_function("n => Number(document.getElementById('number').textContent) === n", arg=number)
    page.keyboard.press("m")


if __name__ == "__main__":
    main(*sys.argv[1:])

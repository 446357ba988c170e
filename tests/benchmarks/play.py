"""How fast the page that plays is: frames a second while a key is held, and milliseconds from a key to its frame.

A real server in a process of its own with the shipped model, and a page that speaks over a real socket; what a browser
takes to paint is not in it. Settings are measured in turns, so that whatever else the machine does meets all alike.

Run: `python -m tests.benchmarks.play`
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.table import Table

from tests.benchmarks.report import finish, options
from tests.play.pages import Page

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "1 step": {"steps": 1},
    "4 steps": {"steps": 4},
    "6 steps": {"steps": 6},
    "10 steps": {"steps": 10},
    "default, guidance 3": {"guidance": 3},
}
HELD = 3.0  # seconds that a key is held
TAPS = 10


@contextmanager
def server(weights: str) -> Iterator[str]:
    """The address of a server that runs meanwhile."""
    command = [sys.executable, "-m", "lit_mm.play", weights, "--port=0", "--browser=false"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r":(\d+)/", said)
        if found is None:
            sys.exit(f"the server did not start: {said}")
        yield found[1]
    finally:
        process.terminate()
        process.wait(30)


def frames_a_second(page: Page, key: str) -> float:
    """Hold a key; frames that come between the first and the last, by the time between them."""
    page.send("keys", keys=[key])
    page.wait_for("view", keys=[key])
    begun = time.perf_counter()
    number, last = 0, begun
    while last - begun < HELD:
        page.wait_for("view")
        number, last = number + 1, time.perf_counter()
    page.send("keys", keys=[])
    drain(page)
    return number / (last - begun)


def key_to_frame(page: Page, key: str) -> float:
    """Seconds from a tapped key to its frame, out of rest."""
    time.sleep(0.4)  # the frame before was read meanwhile, as when a person thinks
    begun = time.perf_counter()
    page.send("keys", keys=[key])
    page.send("keys", keys=[])
    page.wait_for("view", keys=[key])
    taken = time.perf_counter() - begun
    drain(page)
    return taken


def drain(page: Page) -> None:
    """Take what still comes."""
    try:
        while True:
            page.receive(0.3)
    except TimeoutError:
        return


def main() -> None:
    """Print a table, and write what was found."""
    parser = options(__doc__, "play", rounds=3)
    parser.add_argument("--weights", default="lab", help="what to play with; default lab")
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {name: {"fps": [], "ms": []} for name in SETTINGS}
    with server(arguments.weights) as port, Page(int(port)) as page:
        hello = page.wait_for("hello")
        key = hello["keys"][0]
        page.begun()
        for number in range(arguments.rounds):
            for name, changed in SETTINGS.items():
                page.send("set", values=hello_settings(hello) | {"pace": 30} | changed)
                page.wait_for("state")
                page.send("reset", to="place")
                page.wait_for("view", number=0)
                if number == 0:
                    key_to_frame(page, key)
                found[name]["fps"].append(frames_a_second(page, key))
                found[name]["ms"] += [1000 * key_to_frame(page, key) for _ in range(TAPS)]
    table = Table("setting", "frames a second", "ms from key to frame, median", "worst")
    results = {}
    for name, values in found.items():
        results[name] = {"fps": statistics.median(values["fps"]), "ms": statistics.median(values["ms"])}
        table.add_row(name, f"{results[name]['fps']:.1f}", f"{results[name]['ms']:.0f}", f"{max(values['ms']):.0f}")
    finish(table, {"settings": hello_settings(hello), "found": results, "all": found}, arguments.out)


def hello_settings(hello: dict[str, Any]) -> dict[str, Any]:
    """Those that the page has at first."""
    return {name: hello["settings"][name] for name in hello["ranges"]}


if __name__ == "__main__":
    main()

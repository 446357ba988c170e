"""Random keys from three pages for a long time: the memory stays, the threads go on, and in the end all are gone.

`LIT_MM_PLAY_SECONDS=3600 python -m pytest tests/play/test_soak.py` takes the hour.
"""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lit_mm.play.game import Game
from tests.play.conftest import Served, serving, wait_until
from tests.play.pages import Page

SECONDS = float(os.environ.get("LIT_MM_PLAY_SECONDS", "12"))
GROWTH = 48 * 2**20  # bytes: what is kept of three walks, and what the allocator does


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def play(served: Served, seed: int, until: float, frames: list[int]) -> None:
    """Everything that a page can ask, at random; one of the three also leaves in the middle and comes back."""
    chance, count = random.Random(seed), 0
    while time.monotonic() < until:
        with Page(served.port) as page:
            leaves = time.monotonic() + (chance.uniform(1, 30) if seed == 0 else SECONDS)
            while time.monotonic() < min(until, leaves):
                page.send("keys", keys=chance.sample(["W", "A", "S", "D", "stay", "X"], chance.randrange(3)))
                page.send("step")
                if chance.random() < 0.2:
                    chance.choice(
                        [
                            lambda: page.send("undo"),
                            lambda: page.send("reset", to=chance.choice(["place", "data", "drawn"])),
                            lambda: page.send("truth"),
                            lambda: page.send("say", text="step left", frames=2),
                            lambda: page.send("set", values={"seed": chance.randrange(9), "steps": 1}),
                            lambda: page.send("time", mode=chance.choice(["held", "always", "paused"])),
                            lambda: page.send("draw", text="You see a cow.", values={"steps": 1}),
                            lambda: page.send_picture(b"no picture", "walk"),
                        ]
                    )()
                page.wait_for("view", 60)
                count += 1
    frames.append(count)


@pytest.mark.slow
def test_memory_stays_and_no_thread_is_stuck(game: Game) -> None:
    before = set(threading.enumerate())
    quick = replace(game, settings=replace(game.settings, steps=1, pace=30))
    with serving(quick) as served:
        frames: list[int] = []
        until = time.monotonic() + SECONDS * 4 / 3
        players = [threading.Thread(target=play, args=(served, seed, until, frames)) for seed in range(3)]
        for player in players:
            player.start()
        time.sleep(SECONDS / 3)  # from here on all three keep as much as they ever do
        held = resident()
        for player in players:
            player.join(SECONDS + 90)
            assert not player.is_alive(), "a page waits for ever"
        assert len(frames) == 3
        assert min(frames) > 0
        wait_until(lambda: served.room.engine.playing == 0)
        grown = resident() - held
        print(f"{sum(frames)} answers, from {held / 2**20:.0f} MiB by {grown / 2**20:+.0f} MiB")
        assert grown < GROWTH
    wait_until(lambda: set(threading.enumerate()) <= before | {threading.current_thread()})

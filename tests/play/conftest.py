"""A game with the shipped model, a real server of it on a port of this machine, and a real browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

import lit_mm
from lit_mm.play.game import Game
from lit_mm.play.opening import game_of
from lit_mm.play.protocol import MOST_BYTES
from lit_mm.play.server import Room, application
from tests.helpers import browser as browsers
from tests.play.browsing import begun

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Serve = Callable[..., "Served"]


class Served:
    """A server in a thread.

    Attributes:
        address: of the page.
        room: who plays there.
    """

    def __init__(self, room: Room, port: int = 0) -> None:
        self.room = room
        config = uvicorn.Config(
            application(room, "127.0.0.1"),
            port=port,
            log_level="error",
            ws_max_size=MOST_BYTES,
            timeout_graceful_shutdown=3,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        wait_until(lambda: self.server.started)
        self.port: int = self.server.servers[0].sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive(), "the server does not end"
        assert not self.room.engine.is_alive(), "the thread that imagines does not end"


def wait_until(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.01)


@contextmanager
def serving(game: Game, port: int = 0, **rules: float) -> Iterator[Served]:
    served = Served(Room(game, **rules), port)  # type: ignore[arg-type]
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="session")
def game() -> Game:
    """In Crafter; two steps a frame are enough to move by a tile."""
    found = game_of(lit_mm.load("lab", "cpu"), "lab", truth="crafter")
    return replace(found, settings=replace(found.settings, steps=2), drawing=replace(found.drawing, steps=3))


@pytest.fixture(scope="module")
def served(game: Game) -> Iterator[Served]:
    with serving(game) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.browser() as one:
        yield one


@pytest.fixture
def opened(browser: Browser, served: Served) -> Iterator[Callable[..., Page]]:
    """Opens pages of a server, each in a browser window of its own, and fails where one has an error."""
    contexts, errors = [], list[str]()

    def open_page(server: Served = served, width: int = 1000, **options: Any) -> Page:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        contexts[-1].set_default_timeout(120_000)  # of a busy machine
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.address)
        begun(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []

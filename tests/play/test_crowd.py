"""Pages that take much, or are gone without a word: nothing of it reaches the others."""

from __future__ import annotations

import socket
from contextlib import suppress

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from lit_mm.play import server as serving_rules
from lit_mm.play import session as sessions
from lit_mm.play.session import Session
from tests.play.conftest import Served, wait_until
from tests.play.pages import Page, png
from tests.play.test_server import closed_with, plays_on


def test_a_page_that_dies_is_forgotten_and_harms_nobody(served: Served) -> None:
    with Page(served.port) as other, Page(served.port) as dying:
        other.begun()
        dying.begun()
        dying.send("time", mode="always")
        assert served.room.engine.playing == 2
        dying.socket.socket.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: served.room.engine.playing == 1)
        plays_on(other)


def test_pictures_that_wait_are_few(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_WAITING", 100_000)
    noise = png(np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8))
    with Page(served.port) as page:
        page.begun()
        with monkeypatch.context() as patch, suppress(ConnectionClosed):
            patch.setattr(Session, "work", lambda _: 0.01)
            for _ in range(6):
                page.send_picture(noise, "walk")
            assert closed_with(page) == (serving_rules.TOO_FAST, "this page asked for more than could be answered")
    with Page(served.port) as page:
        page.begun()
        page.send_picture(noise, "walk")
        plays_on(page)


def test_a_key_ends_a_sentence(served: Served) -> None:
    with Page(served.port) as page:
        page.begun()
        page.send("say", text="step up", frames=100)
        assert page.wait_for("view", number=1)["left"] == 99
        page.send("keys", keys=["D"])
        page.send("keys", keys=[])
        taken = page.wait_for("view", keys=["D"])
        assert taken["left"] == 0
        assert taken["number"] < 50

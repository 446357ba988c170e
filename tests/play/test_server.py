"""Who may play, and what comes of a page that breaks the rules: a clear reason for it, and nothing for the others."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lit_mm.play import server as serving_rules
from lit_mm.play.game import Game
from lit_mm.play.session import Session
from tests.play.conftest import Served, serving, wait_until
from tests.play.pages import Page, picture_in, png


def get(served: Served, path: str, host: str | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{served.port}")
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def closed_with(page: Page, seconds: float = 60.0) -> tuple[int, str]:
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            page.receive(seconds)
    except ConnectionClosed as closed:
        frame = closed.rcvd
        return (frame.code, frame.reason) if frame is not None else (0, "")
    raise AssertionError("it stays open")


def quiet(page: Page, *kinds: str, seconds: float = 1.0) -> bool:
    """Whether messages stop coming, and none of these kinds is among the last."""
    end = time.monotonic() + 60
    try:
        while time.monotonic() < end:
            if page.receive(seconds)["type"] in kinds:
                return False
    except TimeoutError:
        return True
    return False


def plays_on(page: Page) -> None:
    page.send("step")
    assert page.wait_for("view")["parts"]


def test_the_page_and_its_files_need_nothing_from_elsewhere(served: Served) -> None:
    status, headers, body = get(served, "/")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    text = body.decode()
    assert "https://" not in text
    assert "http://" not in text
    for name in (
        "main.js",
        "link.js",
        "keys.js",
        "walk.js",
        "studio.js",
        "picture.js",
        "sliders.js",
        "style.css",
        "icon.svg",
    ):
        status, headers, body = get(served, f"/page/{name}")
        assert status == 200, name
        assert b"https://" not in body, name
        kind = {"js": "javascript", "css": "css", "svg": "svg"}[name.rpartition(".")[2]]
        assert kind in headers["content-type"]


@pytest.mark.parametrize("path", ["/page/../server.py", "/page/%2e%2e/server.py", "/etc/passwd", "/page//etc/passwd"])
def test_no_other_file_is_served(served: Served, path: str) -> None:
    assert get(served, path)[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8017", "127.0.0.1.evil.example", "localhost.evil.example", ""]
)
def test_other_names_of_this_machine_are_refused(served: Served, host: str) -> None:
    """A name that an attacker's DNS sends here makes the page of the attacker and this one the same origin."""
    assert get(served, "/", host or " ")[0] == 400
    assert get(served, "/", "localhost:1")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_pages_of_other_sites_cannot_connect(served: Served, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        Page(served.port, origin)
    assert refused.value.response.status_code == 403


def test_a_socket_under_another_name_is_refused(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), 30) as raw:
        raw.sendall(
            b"GET /play HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b" 101 " not in raw.recv(1000).split(b"\r\n")[0]


def test_there_is_room_for_so_many(game: Game) -> None:
    with serving(game, sessions=1) as served:
        with Page(served.port) as first:
            first.begun()
            with Page(served.port) as second:
                code, reason = closed_with(second)
            assert (code, reason) == (serving_rules.FULL, "1 are playing already; try again when one has left")
            plays_on(first)
        wait_until(lambda: served.room.engine.playing == 0)
        with Page(served.port) as third:
            third.begun()


def test_who_does_nothing_has_to_leave(game: Game) -> None:
    with serving(game, idle=1.0) as served, Page(served.port) as page:
        code, reason = closed_with(page)
        assert code == serving_rules.LEFT_ALONE
        assert "nothing was done here" in reason
        wait_until(lambda: served.room.engine.playing == 0)


def test_a_flood_is_ended_and_harms_nobody(served: Served) -> None:
    with Page(served.port) as other, Page(served.port) as flood:
        other.begun()
        with suppress(ConnectionClosed):
            for number in range(1_000):
                flood.send("keys", keys=["W"] if number % 2 else [])
        assert closed_with(flood)[0] == serving_rules.TOO_FAST
        plays_on(other)
    wait_until(lambda: served.room.engine.playing == 0)


def test_more_than_can_be_answered_is_ended(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with Page(served.port) as page:
        page.begun()
        monkeypatch.setattr(Session, "work", lambda _: 0.01)  # whatever the machine, no answer is as fast as they ask
        with suppress(ConnectionClosed):  # it may be ended before all is sent
            for _ in range(100):
                page.send("save")
        assert closed_with(page)[0] == serving_rules.TOO_FAST
    monkeypatch.undo()
    with Page(served.port) as page:
        plays_on(page)


@pytest.mark.parametrize(
    ("raw", "code", "reason"),
    [
        ("no JSON", serving_rules.UNREADABLE, "cannot be read"),
        ('{"type": "load", "path": "/etc/passwd"}', serving_rules.UNREADABLE, "cannot be read"),
        (json.dumps({"type": "say", "text": "a" * 5000, "frames": 1}), serving_rules.UNREADABLE, "text of 'say' is"),
        (b"\0" * (9 * 2**20), 1009, ""),
    ],
    ids=["text", "path", "long", "large"],
)
def test_what_is_no_message_is_ended_with_its_reason(served: Served, raw: str | bytes, code: int, reason: str) -> None:
    with Page(served.port) as page:
        page.begun()
        page.socket.send(raw)
        found = closed_with(page)
    assert found[0] == code
    assert reason in found[1]


def bomb() -> bytes:
    """A small file of many pixels."""
    return png(np.zeros((6000, 6000), np.uint8))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [(b"no picture", "no picture, or cut short"), (b"", "no picture"), ("bomb", "more than 16 million pixels")],
    ids=["broken", "empty", "bomb"],
)
def test_a_broken_picture_is_told_and_the_game_goes_on(
    served: Served, data: bytes | str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # data of a model set their own limit, of all the process
    with Page(served.port) as page:
        page.begun()
        page.send_picture(bomb() if isinstance(data, str) else data, "walk")
        assert sentence in page.wait_for("error")["text"]
        plays_on(page)


def test_settings_and_sentences_out_of_range_are_told_and_the_game_goes_on(served: Served) -> None:
    with Page(served.port) as page:
        page.begun()
        page.send("set", values={"steps": 10_000})
        assert page.wait_for("error")["text"] == "steps is 10000; give a whole number from 1 to 50"
        page.send("say", text="step up and " * 160, frames=2)
        assert "the sentence is too long" in page.wait_for("error")["text"]
        page.send("undo")
        assert "no frame to undo" in page.wait_for("error")["text"]
        page.send("describe", text="")
        assert "no picture to describe" in page.wait_for("error")["text"]
        plays_on(page)


def test_a_fault_is_told_and_the_game_goes_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with Page(served.port) as page:
        page.begun()
        with monkeypatch.context() as patch:
            patch.setattr("lit_mm.play.saving.archive", lambda *_: 1 / 0)
            page.send("save")
            assert "something failed" in page.wait_for("error")["text"]
        plays_on(page)


def test_keys_move_both_and_a_tap_is_one_step(served: Served) -> None:
    with Page(served.port) as page:
        page.begun()
        page.send("keys", keys=["D"])
        page.send("keys", keys=[])
        view = page.wait_for("view", number=1)
        assert view["keys"] == ["D"]
        assert view["action"] == "action: dx=+0.000, dy=-1.000, dyaw=+0.000, rel_t=+1.000"
        assert picture_in(view, 1).shape == picture_in(view).shape == (64, 64, 3)
        assert quiet(page, "view")


def test_held_keys_go_on_until_they_are_let_go_or_time_is_stopped(served: Served) -> None:
    with Page(served.port) as page:
        page.begun()
        page.send("keys", keys=["S"])
        page.wait_for("view", number=3)
        page.send("time", mode="paused")
        page.wait_for("state", mode="paused")
        assert quiet(page)
        page.send("step")
        assert page.wait_for("view")["keys"] == ["S"]
        page.send("keys", keys=[])
        page.send("time", mode="always")
        assert page.wait_for("view", keys=[])["action"].startswith("action: dx=+0.000, dy=+0.000")


def test_a_sentence_holds_for_as_many_frames_as_asked(served: Served) -> None:
    with Page(served.port) as page:
        page.begun()
        page.send("say", text="step up", frames=3)
        views = [page.wait_for("view", number=number) for number in (1, 2, 3)]
        assert [view["left"] for view in views] == [2, 1, 0]
        assert {view["action"] for view in views} == {"action: step up"}
        assert all(view["understood"] for view in views)


def test_a_picture_is_drawn_step_by_step_and_described_token_by_token(served: Served) -> None:
    with Page(served.port) as page:
        page.begun()
        page.send("draw", text="You see two cows.", values={"steps": 5, "seed": 3})
        steps = []
        while not steps or not steps[-1]["done"]:
            steps.append(page.wait_for("drawn"))
        assert [one["steps"] for one in steps] == [5] * len(steps)
        drawn = served.room.game.model.draw("You see two cows.", steps=5, seed=3)
        np.testing.assert_array_equal(picture_in(steps[-1]), np.array(drawn))
        page.send("describe", text="")
        texts = []
        while not texts or not texts[-1]["done"]:
            texts.append(page.wait_for("said"))
        assert len(texts) > 3
        assert texts[-1]["text"] == served.room.game.model.describe(drawn, max_tokens=128)
        page.send("reset", to="drawn")
        np.testing.assert_array_equal(picture_in(page.wait_for("view", number=0)), np.array(drawn))


def test_a_dropped_picture_is_walked_in_and_saved(served: Served) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    with Page(served.port) as page:
        page.begun()
        page.send_picture(png(picture), "walk")
        view = page.wait_for("view", number=0)
        assert len(view["parts"]) == 1, "nobody knows the truth of it"
        plays_on(page)
        page.send("save")
        packed = zipfile.ZipFile(io.BytesIO(page.wait_for("saved")["parts"][0]))
        np.testing.assert_array_equal(picture_in({"parts": [packed.read("walk/walk.shown-0.png")]}), picture_in(view))
        page.send("truth")
        assert "nobody knows what is true" in page.wait_for("error")["text"]
        page.send("reset", to="place")
        assert len(page.wait_for("view", number=0)["parts"]) == 2

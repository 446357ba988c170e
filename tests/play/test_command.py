"""`python -m lit_mm.play` as it is started: an address, or one sentence."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
from pathlib import Path

import pytest
import torch

import lit_mm
from lit_mm.mistake import Mistake
from lit_mm.play.opening import game_of
from lit_mm.play.trained_on import walks_of
from tests.helpers.forked import Process
from tests.helpers.program import ROOT, environment
from tests.play.conftest import wait_until


def refused(*arguments: str) -> str:
    process = Process("lit_mm.play", *arguments, "--browser=false", env=environment())
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in output
    return line


@pytest.mark.slow
def test_it_says_where_it_is_and_ends_with_ctrl_c() -> None:
    process = Process("lit_mm.play", "lab", "--port=0", "--truth=none", "--browser=false", env=environment())
    said = ""

    def address() -> re.Match[str] | None:
        nonlocal said
        said += process.stdout.read()
        return re.search(r"http://127\.0\.0\.1:(\d+)/", said)

    try:
        wait_until(address, 240)
        found = address()
        assert found is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert "Traceback" not in output
    finally:
        process.kill()


@pytest.mark.slow
def test_a_port_in_use_and_other_mistakes_are_one_sentence() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refused("lab", f"--port={port}")
        assert f"--port {port} of 127.0.0.1 cannot be used (Address already in use)" in said
    assert "every address of this machine" in refused("lab", "--host=0.0.0.0")
    assert "--port 70000" in refused("lab", "--port=70000")
    assert "'nowhere' does not exist" in refused("nowhere", "--port=0")


def test_a_checkpoint_without_frames_cannot_be_played_with() -> None:
    model = lit_mm.load("lab", "cpu")
    torch.nn.init.zeros_(model.decoder.model.velocity_head.linear.weight)
    with pytest.raises(Mistake, match=r"lab' cannot be played with: .* never trained to draw"):
        game_of(model, "lab")


def test_a_steering_file_for_other_data_is_refused() -> None:
    model = lit_mm.load("lab", "cpu")
    with pytest.raises(
        Mistake, match=r"game.yaml' is for other data: its rel_t is 0.125, .* a horizon of 1, where a step"
    ):
        game_of(model, "lab", str(ROOT / "configs/steering/game.yaml"))


def test_walks_are_those_of_the_configuration(trained: Path) -> None:
    lab = walks_of(ROOT / "lit_mm/weights/lab")
    assert lab is not None
    assert (lab.actions, lab.context, lab.horizon) == ("told", 1, 1)
    game = walks_of(trained)
    assert game is not None
    assert (game.actions, game.context, game.horizon, game.unit) == ("moves", 4, 8, 32.0)


def test_a_model_of_the_game_is_walked_in_beside_the_data(trained: Path) -> None:
    """Four frames of context, from the data's own episodes."""
    found = game_of(lit_mm.load(trained, "cpu"), "trained", str(ROOT / "configs/steering/game.yaml"), truth="none")
    assert found.context == 4
    frames = found.from_data(3)
    assert [tuple(frame.shape) for frame in frames] == [(3, 64, 64)] * 4
    assert all(torch.equal(one, other) for one, other in zip(frames, found.from_data(3), strict=True))
    assert found.action(["W", "LEFT"])[1] == (0.660, 0.0, 0.241)

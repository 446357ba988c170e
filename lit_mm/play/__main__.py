"""`python -m lit_mm.play WEIGHTS` serves the page and says where it is."""

from __future__ import annotations

import os
import socket
import sys
import webbrowser
from contextlib import suppress
from typing import Literal

from jsonargparse import auto_cli

from lit_mm.loading import load
from lit_mm.mistake import Mistake, ends_with_a_sentence, from_extra
from lit_mm.play.opening import game_of


def main(
    weights: str,
    port: int = 8017,
    host: str = "127.0.0.1",
    steering: str | None = None,
    truth: Literal["auto", "crafter", "vizdoom", "none"] = "auto",
    browser: bool = True,
) -> None:
    """Play with a trained model in a browser.

    Args:
        weights: a checkpoint, an export, or the name of a model that comes with the package, `lab`.
        port: of the page; 0 for any that is free.
        host: address to bind to. Whoever can reach it can play; only the machine itself by default.
        steering: file that says what keys do; the model's own by default.
        truth: the simulator to show beside what is imagined; one that fits by default, if it is installed.
        browser: open one where there is a desktop.
    """
    with from_extra("play", "the page that plays"):
        import uvicorn

        from lit_mm.play.protocol import MOST_BYTES
        from lit_mm.play.server import Room, application
    listening = _bound(host, port)
    print("loading the model", file=sys.stderr)
    game = game_of(load(weights), weights, steering, truth)
    app = application(Room(game), host)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/"
    print(f"play at {address} (Ctrl-C stops it)", flush=True)
    if browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"):
        webbrowser.open(address)
    config = uvicorn.Config(app, log_level="warning", ws_max_size=MOST_BYTES, timeout_graceful_shutdown=5)
    with suppress(KeyboardInterrupt):  # which it raises once more when all is closed
        uvicorn.Server(config).run(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    """A socket at an address.

    Raises:
        Mistake: it cannot be had.
    """
    if host in ("0.0.0.0", "::", ""):
        raise Mistake(
            f"--host is '{host}', every address of this machine; name the one that the page is opened by, since any "
            "other name is refused"
        )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "ports go to 65535"
        raise Mistake(f"--port {port} of {host} cannot be used ({why}); name another, or 0 for any free one") from error
    return listening


if __name__ == "__main__":
    with ends_with_a_sentence():
        auto_cli(main)

"""The page and its socket, as a Starlette application: who may connect, and for how long."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from lit_mm.mistake import Mistake
from lit_mm.play.engine import Engine
from lit_mm.play.game import Game
from lit_mm.play.outbox import Outbox
from lit_mm.play.protocol import read
from lit_mm.play.session import Session, TooMuch

PAGE = Path(__file__).parent / "page"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
SESSIONS = 4
IDLE = 600.0  # seconds without a message
PER_SECOND, AT_ONCE = 60.0, 120.0  # messages of a page
# Codes with which a socket is closed, and why; the page shows the reason.
FULL, TOO_FAST, UNREADABLE, LEFT_ALONE = 4001, 4002, 4003, 4004
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

logger = logging.getLogger(__name__)


class Room:
    """All that play, and the rules.

    Args:
        game: what is played.
        sessions: at a time.
        idle: seconds after which one that says nothing has to leave.
    """

    def __init__(self, game: Game, sessions: int = SESSIONS, idle: float = IDLE) -> None:
        self.game, self.idle, self.engine = game, idle, Engine(sessions)

    @asynccontextmanager
    async def open(self, app: Starlette) -> AsyncIterator[None]:
        """While the server runs."""
        self.engine.start()
        yield
        await asyncio.to_thread(self.engine.stop)

    async def play(self, socket: WebSocket) -> None:
        """One page, from its first message to its last."""
        if socket.headers.get("origin") != f"http://{socket.headers.get('host')}":
            await socket.close()  # before it was accepted: HTTP 403
            return
        await socket.accept()
        outbox = Outbox(asyncio.get_running_loop())
        try:
            session = self.engine.add(lambda: Session(self.game, outbox))
        except Mistake as error:
            await socket.close(FULL, error.sentence)
            return
        sending = asyncio.create_task(_send(socket, outbox))
        try:
            code, reason = await self._listen(socket, session, outbox)
            with suppress(RuntimeError, WebSocketDisconnect):
                await asyncio.wait_for(socket.close(code, reason), 5)
        except (WebSocketDisconnect, TimeoutError, asyncio.TimeoutError):
            pass
        finally:
            sending.cancel()
            self.engine.remove(session)

    async def _listen(self, socket: WebSocket, session: Session, outbox: Outbox) -> tuple[int, str]:
        """Pass on what a page says, until it breaks a rule: the code and the reason to close with."""
        allowance, last = AT_ONCE, time.monotonic()
        leaves = last + self.idle
        while True:
            try:
                raw = await asyncio.wait_for(socket.receive(), max(0.0, leaves - time.monotonic()))
            except (TimeoutError, asyncio.TimeoutError):
                return LEFT_ALONE, f"nothing was done here for {self.idle / 60:g} minutes; load the page to play on"
            if raw["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(raw.get("code", 1005))
            now = time.monotonic()
            allowance, last = min(AT_ONCE, allowance + (now - last) * PER_SECOND) - 1, now
            if allowance < 0:
                return TOO_FAST, f"this page sent more than {PER_SECOND:g} messages a second"
            try:
                message = read(raw.get("bytes") or raw.get("text") or "")
            except Mistake as error:
                return UNREADABLE, error.sentence[:110]
            if message.kind == "seen":
                outbox.seen()
                continue
            leaves = now + self.idle
            try:
                session.ask(message)
            except TooMuch:
                return TOO_FAST, "this page asked for more than could be answered"
            self.engine.wake()


async def _send(socket: WebSocket, outbox: Outbox) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):
        while True:
            packed = (await outbox.next()).packed()
            await (socket.send_text(packed) if isinstance(packed, str) else socket.send_bytes(packed))


class _Headers:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        await self.app(scope, receive, with_headers)


async def _index(request: Request) -> Response:
    return FileResponse(PAGE / "index.html")


def application(room: Room, host: str) -> Starlette:
    """What is served.

    Args:
        room: who plays.
        host: address that it is bound to; no other name is answered, but those of this machine to itself.
    """
    return Starlette(
        routes=[
            Route("/", _index),
            WebSocketRoute("/play", room.play),
            Mount("/page", StaticFiles(directory=PAGE)),
        ],
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, host], www_redirect=False),
        ],
        lifespan=room.open,
    )

"""A web server that serves files in byte ranges, slowly, and fails where it is told to."""

from __future__ import annotations

import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server(ThreadingHTTPServer):
    """Serves the files of a folder in ranges, with trouble.

    Attributes:
        failures: of each path's next answers, the status to send instead, or "hang" or "cut".
        later: takes the place of `failures` once `/trouble` is asked for.
        silence: seconds that an answer hangs.
        sent: bytes of all answers.
        wait: seconds before each answer.
        most: requests that it was busy with at once.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.failures, self.sent, self.wait = folder, dict[str, list[int | str]](), 0, 0.0
        self.later, self.silence = dict[str, list[int | str]](), 3.0
        self.asked: Counter[str] = Counter()
        self.now = self.most = 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up is no error."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.server.now += 1
        self.server.most = max(self.server.most, self.server.now)
        try:
            self.answer(body=True)
        finally:
            self.server.now -= 1

    def answer(self, body: bool) -> None:
        server, path = self.server, self.path
        server.asked[path] += 1
        time.sleep(server.wait)
        if path == "/trouble":
            server.failures = server.later
        trouble = server.failures.get(path, []).pop(0) if body and server.failures.get(path) else None
        if trouble == "hang":
            time.sleep(server.silence)
            return
        file = server.folder / path.lstrip("/")
        if isinstance(trouble, int) or not file.is_file():
            self.send_error(trouble if isinstance(trouble, int) else 404)
            return
        content = file.read_bytes()
        span = self.headers.get("Range")
        first, last = 0, len(content) - 1
        if span:
            begin, _, end = span.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(int(end or last), last)
        part = content[first : last + 1]
        self.send_response(206 if span else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{file.stat().st_mtime_ns}"')
        if span:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if body:
            part = part[: len(part) // 2] if trouble == "cut" else part
            server.sent += len(part)
            self.wfile.write(part)

"""Tars on other machines: read by byte ranges from servers that are slow, fail and hang."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.index import storage
from data_modules.index.input_files import find_input_files
from data_modules.reading.files import spread_range
from lit_mm.mistake import MissingFile, Mistake
from tests.data_modules.index.test_tars import load, shown
from tests.helpers.tars import pairs, write_tar


class Server(ThreadingHTTPServer):
    """Serves the files of a folder in ranges, with trouble.

    Attributes:
        failures: of each path's next answers, the status to send instead, or "hang" or "cut".
        sent: bytes of all answers.
        wait: seconds before each answer.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.failures, self.sent, self.wait = folder, dict[str, list[int | str]](), 0, 0.0
        self.asked: Counter[str] = Counter()
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
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        server, path = self.server, self.path
        server.asked[path] += 1
        time.sleep(server.wait)
        trouble = server.failures.get(path, []).pop(0) if body and server.failures.get(path) else None
        if trouble == "hang":
            time.sleep(3)
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


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(storage, "SILENCE", 1.0)
    fsspec.get_filesystem_class("http").clear_instance_cache()
    (tmp_path / "served").mkdir()
    with Server(tmp_path / "served") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_tars_of_a_web_server(server: Server, document_format: DocumentFormat) -> None:
    for n in range(3):
        write_tar(server.folder / f"{n:05}.tar", pairs(4, 4 * n))
    server.wait = 0.02
    dataset = load(f"{server.url}/{{00000..00002}}.tar", document_format)
    assert shown(dataset, document_format) == {f"a cat number {i}": [i, 0, 0] for i in range(12)}
    asked = server.asked.total()
    again = load(f"{server.url}/{{00000..00002}}.tar", document_format)
    assert server.asked.total() - asked <= 3 * 2, "an indexed tar is only looked up"
    sent = server.sent
    again.document(Draw(5, 0, 0))
    size = int(again.pairs.view.index(1)["size"][1])
    assert server.sent - sent == size, "a picture alone is fetched"


@pytest.mark.parametrize("trouble", [500, 503, 429, "hang", "cut"])
def test_a_server_that_fails_for_a_while(server: Server, document_format: DocumentFormat, trouble: int | str) -> None:
    write_tar(server.folder / "0.tar", pairs(3))
    server.failures["/0.tar"] = [trouble, trouble]
    dataset = load(f"{server.url}/0.tar", document_format)
    server.failures["/0.tar"] = [trouble]
    assert shown(dataset, document_format) == {f"a cat number {i}": [i, 0, 0] for i in range(3)}


def test_a_server_that_fails_for_good(server: Server, document_format: DocumentFormat) -> None:
    write_tar(server.folder / "0.tar", pairs(3))
    dataset = load(f"{server.url}/0.tar", document_format)
    server.failures["/0.tar"] = [500] * 100
    with pytest.raises(BrokenFile, match=r"0\.tar' broke while being read: 6 attempts failed, the last with .*500"):
        dataset.document(Draw(0, 0, 0))
    server.failures.clear()
    (server.folder / "0.tar").unlink()
    with pytest.raises(BrokenFile, match="it is no longer there"):
        dataset.document(Draw(0, 0, 0))
    with pytest.raises(MissingFile, match=r"data\.train: there is no file or folder 'http://.*/0\.tar'"):
        load(f"{server.url}/0.tar", document_format)


def test_a_tar_that_grew_on_the_server_is_indexed_anew(server: Server, document_format: DocumentFormat) -> None:
    write_tar(server.folder / "0.tar", pairs(3))
    assert len(load(f"{server.url}/0.tar", document_format)) == 3
    write_tar(server.folder / "0.tar", pairs(40))
    assert len(load(f"{server.url}/0.tar", document_format)) == 40


def test_folders_and_globs_of_a_storage(document_format: DocumentFormat, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for n in range(3):
        memory.pipe(f"/web/part{n % 2}/{n}.tar", write_tar(tmp_path / f"{n}.tar", pairs(4, 4 * n)).read_bytes())
    memory.pipe("/web/readme.md", b"hello")
    everything = load("memory://web", document_format)
    assert len(everything) == 12
    assert len(load("memory://web/part0/*.tar", document_format)) == 8
    assert [f.path for f in find_input_files("memory://web/**/1.tar", (".tar",), "x")] == ["memory:///web/part1/1.tar"]
    assert everything.document(Draw(11, 0, 0)).segments[1].image[0, 0, 0] == 7, "files are in the order of their names"
    with pytest.raises(MissingFile, match=r"data\.train: 'memory://web/\*\.tar' holds no \.tar file"):
        load("memory://web/*.tar", document_format)
    with pytest.raises(Mistake, match=r"data\.train: 'nonsense://x/0\.tar' cannot be read here"):
        load("nonsense://x/0.tar", document_format)


def test_ranges() -> None:
    assert list(spread_range("a/{08..10}/x{1..2}.tar")) == [
        f"a/{n}/x{m}.tar" for n in ("08", "09", "10") for m in (1, 2)
    ]

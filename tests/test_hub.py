"""Several processes that want the same files of the Hub, from a small Hub on this machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMIT = "c" * 40
FILES = {"config.json": b'{"model_type": "dinov2"}', "vae/config.json": b"{}", "pytorch_model.bin": b"w" * 3_000_000}
ASKING = """
import sys
from lit_mm.hub import NotFromHub, from_hub
try:
    print(*from_hub("owner/name", [names.split("|") for names in sys.argv[1:]]), sep="\\n")
except NotFromHub as error:
    print("not there:", error)
"""


class Hub(BaseHTTPRequestHandler):
    """Answers `/owner/name/resolve/<commit>/<file>` as the Hub does, and counts what it is asked."""

    asked: Counter[str]

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, with_content: bool) -> None:
        file = self.path.partition("/resolve/")[2].partition("/")[2]
        self.asked[f"{self.command} {file}"] += 1
        content = FILES.get(file)
        self.send_response(404 if content is None else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if with_content and content is not None:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub() -> Iterator[tuple[str, Counter[str]]]:
    """Its address, and how often it was asked for what."""
    Hub.asked = Counter()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", Hub.asked
    server.shutdown()
    server.server_close()


def ask(endpoint: str, cache: Path, *wanted: str, processes: int = 1, **more: str) -> list[list[str]]:
    """What each of some processes, started at once, prints."""
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    env = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
    env |= {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT), **more}
    command = [sys.executable, "-c", ASKING, *wanted]
    started = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return [process.communicate(timeout=60)[0].splitlines() for process in started]


def test_one_process_asks_and_the_others_find_what_it_downloaded(hub: tuple[str, Counter[str]], tmp_path: Path) -> None:
    endpoint, asked = hub
    wanted = ("config.json", "model.safetensors|pytorch_model.bin")
    answers = ask(endpoint, tmp_path, *wanted, processes=3)
    assert all(answer == answers[0] for answer in answers)
    config, weights = map(Path, answers[0])
    assert config.read_bytes() == FILES["config.json"]
    assert weights.read_bytes() == FILES["pytorch_model.bin"]
    assert config.parent == weights.parent
    assert asked["GET config.json"] == asked["GET pytorch_model.bin"] == 1
    assert asked["HEAD model.safetensors"] == 1
    before = asked.total()
    assert ask(endpoint, tmp_path, *wanted, HF_HUB_OFFLINE="1") == [answers[0]]  # and later nobody asks
    assert asked.total() == before
    (answer,) = ask(endpoint, tmp_path, "vae/config.json")
    assert Path(answer[0]).parts[-3:] == (COMMIT, "vae", "config.json")


def test_what_is_not_there_is_said(hub: tuple[str, Counter[str]], tmp_path: Path) -> None:
    endpoint, _ = hub
    assert ask(endpoint, tmp_path, "one.bin|two.bin") == [["not there: it has no one.bin or two.bin"]]
    assert ask(endpoint, tmp_path, "x", HF_HUB_OFFLINE="1") == [["not there: HF_HUB_OFFLINE is set"]]
    ((sentence,),) = ask("http://127.0.0.1:9", tmp_path, "x")
    assert sentence.startswith("not there: 127.0.0.1: ")

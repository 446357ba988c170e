"""Tars on other machines: read by byte ranges from servers that are slow, fail and hang."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from data_modules.conversation import ConversationSource
from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.index.input_files import find_input_files
from data_modules.interleaved import InterleavedSource
from data_modules.reading.files import spread_range
from data_modules.text import TextSource
from lit_mm.mistake import MissingFile, Mistake
from tests.data_modules.index.test_tars import load, shown
from tests.helpers.tars import pairs, write_tar
from tests.helpers.web_server import Server


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


def test_a_file_is_looked_up_with_patience(server: Server, document_format: DocumentFormat) -> None:
    write_tar(server.folder / "0.tar", pairs(3))
    server.unseen["/0.tar"] = [503] * 6
    assert len(load(f"{server.url}/0.tar", document_format)) == 3
    server.unseen["/0.tar"] = [503] * 100
    with pytest.raises(Mistake, match=r"^data\.train: 'http.*/0\.tar' cannot be looked up: 6 attempts failed, .*503"):
        load(f"{server.url}/0.tar", document_format)
    server.unseen["/0.tar"] = [403] * 2
    with pytest.raises(MissingFile, match=r"data\.train: there is no file or folder"):
        load(f"{server.url}/0.tar", document_format)
    server.server_close()
    with pytest.raises(
        Mistake, match=r"data\.train: .* cannot be looked up: 6 attempts failed, the last with ClientConnectorError"
    ):
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
    with pytest.raises(MissingFile, match=r"data\.train: 'memory://web/\*\.tar' holds no \.tar or \.parquet file"):
        load("memory://web/*.tar", document_format)
    with pytest.raises(Mistake, match=r"data\.train: 'nonsense://x/0\.tar' cannot be read here"):
        load("nonsense://x/0.tar", document_format)


def test_what_is_read_from_this_machine_alone(document_format: DocumentFormat) -> None:
    fsspec.filesystem("memory").pipe("/talk/a.json", b"[]")
    for kind in (ConversationSource, InterleavedSource):
        with pytest.raises(
            Mistake, match=r"data\.train: 'memory://talk/a\.json' is on another machine, .* copy it here"
        ):
            kind("memory://talk/a.json").dataset("train", "talk", document_format)
    with pytest.raises(
        MissingFile, match=r"holds no \.jsonl, .* file; other kinds are read from this machine, so copy"
    ):
        TextSource("memory://talk/a.csv").dataset("train", "talk", document_format)


def test_ranges() -> None:
    assert list(spread_range("a/{08..10}/x{1..2}.tar")) == [
        f"a/{n}/x{m}.tar" for n in ("08", "09", "10") for m in (1, 2)
    ]

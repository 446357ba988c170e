"""Tokens of other programs on other machines, unpacked once into the cache."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from data_modules.dataset import BrokenFile, DocumentFormat
from data_modules.index.__main__ import make_part
from data_modules.mixing.loader_config import LoaderConfig
from data_modules.text import TextDataModule
from lit_mm.mistake import MissingFile
from tests.data_modules.test_token_shards import DOCUMENTS, load, windows
from tests.helpers.token_files import pack_mds, write_litdata, write_mds
from tests.helpers.web_server import Server

WHOLE = DOCUMENTS[:3]  # a single token is left out


@pytest.mark.parametrize("packing", [None, "zstd"])
def test_mds_of_a_web_server(packing: str | None, server: Server, document_format: DocumentFormat) -> None:
    folder = write_mds(server.folder / "mds", DOCUMENTS)
    if packing:
        pack_mds(folder, packing)
    here, url = windows(load(folder, document_format)), f"{server.url}/mds"
    shard = f"/mds/shard.00001.mds{'.zstd' if packing else ''}"
    server.failures[shard] = [503]
    for path in (url, f"{url}/", f"{url}/index.json"):
        assert windows(load(path, document_format)) == here
    assert server.asked[shard] == 2, "once, after it has failed once"
    first = load(url, document_format).files
    others = [[token + 1 for token in document] for document in DOCUMENTS]  # of the same sizes
    write_mds(folder, others)
    if packing:
        pack_mds(folder, packing)
    assert windows(load(url, document_format, window=64)) == others[:3]
    assert load(url, document_format).files != first


def test_litdata_of_a_storage(tmp_path: Path, document_format: DocumentFormat) -> None:
    for compression in (None, "zstd"):
        folder = write_litdata(tmp_path / str(compression), DOCUMENTS, compression)
        fsspec.filesystem("memory").put(str(folder), f"/tokens/{compression}", recursive=True)
        assert windows(load(f"memory://tokens/{compression}", document_format, window=64)) == WHOLE


def test_what_is_not_there_is_said(server: Server, document_format: DocumentFormat) -> None:
    folder = write_mds(server.folder / "mds", DOCUMENTS)
    (folder / "shard.00001.mds").unlink()
    with pytest.raises(BrokenFile, match=r"http.*/mds/shard.00001.mds' broke while being read: "):
        load(f"{server.url}/mds", document_format)
    with pytest.raises(MissingFile, match=r"data.train: there is no 'http.*/none/index.json'"):
        load(f"{server.url}/none/index.json", document_format)
    with pytest.raises(MissingFile, match=r"data.train: 'http.*/none' holds no .jsonl"):
        load(f"{server.url}/none", document_format)


def test_they_are_unpacked_ahead(
    server: Server, tmp_path: Path, document_format: DocumentFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    pack_mds(write_mds(server.folder / "mds", DOCUMENTS), "zstd")
    cache = LoaderConfig(cache=str(tmp_path / "cache"))
    module = TextDataModule(train=f"{server.url}/mds", loader=cache, tokenizer="data/tiny/tokenizer.json")
    for _ in range(2):
        make_part(module, 1, 1)
    assert capsys.readouterr().out == (
        "data.train: 0 of 2 files are indexed already\ndata.train: 2 of 2 files are indexed already\n"
    )
    server.shutdown()
    server.server_close()
    (source,) = module.mixture.sources.values()
    dataset = source.dataset("train", "tokens", document_format)
    assert dataset is not None
    assert windows(dataset)[:2] == DOCUMENTS[:2]

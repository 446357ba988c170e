"""Latents on other machines: written whole, read by ranges of bytes, and where nothing can be written said to lack."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch
from fsspec import AbstractFileSystem
from torch import Tensor

from callbacks.latent_work import LatentFolder, LatentWork
from data_modules.base import DocumentDataModule
from data_modules.dataset import BrokenFile, DocumentFormat
from data_modules.image_text import ImageTextDataModule
from data_modules.index.range_cache import RangeCache
from data_modules.mixing.loader_config import LoaderConfig
from data_modules.reading.latent_store import LatentStore
from lit_mm.mistake import Mistake
from lit_mm.vision import Pixels
from tests.helpers.tars import pairs, write_tar
from tests.helpers.web_server import Server

PICTURES = 9
VISION = Pixels(image_size=32, patch_size=16)


@pytest.fixture
def data(tmp_path: Path, document_format: DocumentFormat) -> DocumentDataModule:
    write_tar(tmp_path / "tars" / "0.tar", pairs(PICTURES))
    module = ImageTextDataModule(
        train=str(tmp_path / "tars"),
        tokenizer=str(document_format.tokenizer.file),
        loader=LoaderConfig(row_length=128, rows=2, workers=0),
        image_size=32,
        tokens_per_frame=VISION.num_tokens,
    )
    module.setup("fit")
    return module


def work_in(folder: str, data: DocumentDataModule) -> LatentWork:
    """Files of four pictures."""
    size = 4 * VISION.num_tokens * VISION.channels * 4 / 2**20
    return LatentWork(data, VISION, LatentFolder(folder, batch_size=3, shard_size=size))


def fill(work: LatentWork) -> None:
    (one,) = work.sources(("train",))
    missing = one.keys[work.look(one).missing]
    work.encode([(one, work.shards_of(missing))], torch.device("cpu"), shown=False)
    one.folder.say_what_is_there()


def store_of(work: LatentWork, cache: RangeCache | None = None) -> LatentStore:
    (one,) = work.sources(("train",))
    found = work.look(one)
    assert not len(found.missing)
    return LatentStore(found.table, work.encoder, cache)


def pictures_of(work: LatentWork) -> list[Tensor]:
    """What the latents have to be."""
    (one,) = work.sources(("train",))
    return [VISION.encode(picture[None])[0] for picture in one.pictures.read(one.keys.tolist())]


def check(store: LatentStore, work: LatentWork, keys: Sequence[int] = range(PICTURES)) -> None:
    expected = pictures_of(work)
    for key, latents in zip(keys, store.read(keys), strict=True):
        assert torch.equal(latents, expected[key])


def test_written_and_read_on_any_storage(data: DocumentDataModule) -> None:
    work = work_in("memory://latents/here", data)
    fill(work)
    files = fsspec.filesystem("memory").find("/latents/here")
    folder = f"/latents/here/{work.encoder.name}"
    assert f"{folder}/encoder.json" in files
    assert len([name for name in files if name.startswith(f"{folder}/train/") and name.endswith(".safetensors")]) == 3
    check(store_of(work), work)
    fsspec.filesystem("memory").rm("/latents", recursive=True)


def test_on_s3(data: DocumentDataModule, s3: AbstractFileSystem) -> None:
    with pytest.raises(Mistake, match=r"callbacks\.LatentCache\.folder: 's3://nobucket/.*' cannot be written"):
        fill(work_in("s3://nobucket/latents", data))
    s3.mkdir("bucket")
    work = work_in("s3://bucket/latents", data)
    fill(work)
    store = store_of(work)
    store.ahead([2, 3, 7])
    check(store, work, [2, 3, 7])
    assert [file.path for file in work.folder.files()] == [f"{work.folder.path}/encoder.json"]


def test_over_http_ranges_are_read_and_kept(server: Server, tmp_path: Path, data: DocumentDataModule) -> None:
    local = work_in(str(server.folder), data)
    fill(local)
    work, size = work_in(server.url, data), local.encoder.picture_bytes
    store = pickle.loads(pickle.dumps(store_of(work, RangeCache(tmp_path / "ranges", 10**9))))
    store.read([0])
    before = server.sent, server.asked.total()
    check(store, work, [1, 2, 3])
    assert server.sent - before[0] == 3 * size, "neighbours come together, and nothing besides"
    assert server.asked.total() - before[1] == 1
    store.ahead([4, 5, 8])
    check(store, work, [4, 5, 8])
    before = server.sent, server.asked.total()
    check(pickle.loads(pickle.dumps(store)), work, [1, 2, 3])
    check(pickle.loads(pickle.dumps(store)), work, [4, 5, 8])
    assert (server.sent, server.asked.total()) == before, "they are on the local disk now"


def test_over_http_what_lacks_is_said(server: Server, tmp_path: Path, data: DocumentDataModule) -> None:
    work = work_in(server.url, data)
    (one,) = work.sources(("train",))
    with pytest.raises(
        Mistake, match=r"lacks 9 of 9 pictures of the source 'image_text' \(train\), and over HTTP nothing"
    ):
        work.check_room([one], [work.look(one)])
    fill(work_in(str(server.folder), data))
    write_tar(tmp_path / "tars" / "1.tar", pairs(2, 50))
    data.datasets.clear()
    data.listing.__init__()  # type: ignore[misc]
    data.open("train")
    (one,) = work.sources(("train",))
    found = work.look(one)
    with pytest.raises(Mistake, match=r"lacks 2 of 11 pictures .*; make them with python -m callbacks\.latent_cache"):
        work.check_room([one], [found])


def test_a_server_that_fails_is_waited_for_and_then_said(server: Server, data: DocumentDataModule) -> None:
    fill(work_in(str(server.folder), data))
    work = work_in(server.url, data)
    store = store_of(work)
    paths = [file.path.removeprefix(server.url) for file in store.table.files]
    server.failures = {path: [500, "cut"] for path in paths}
    check(store, work)
    server.failures = {path: [500] * 100 for path in paths}
    with pytest.raises(BrokenFile, match="6 attempts failed"):
        store.read([0])


def test_frames_of_another_size_are_other_pictures(data: DocumentDataModule) -> None:
    """A tokenizer of the same name cannot make that of it: the numbers say how large pictures were."""
    (one,) = work_in("memory://sizes", data).sources(("train",))
    assert data.format is not None
    larger = data.mixture.sources["image_text"].dataset("train", "pairs", replace(data.format, image_size=64))
    assert larger is not None
    assert larger.pictures is not None
    assert not {*one.pictures.identities(one.keys).tolist()} & {*larger.pictures.identities(one.keys).tolist()}

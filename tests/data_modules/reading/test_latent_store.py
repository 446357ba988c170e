"""Stored latents are those of the pictures that documents show, or the store is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from data_modules.action_video import ActionVideoSource
from data_modules.base import DocumentDataModule
from data_modules.dataset import BrokenFile, DocumentDataset, DocumentFormat, Draw
from data_modules.image_text import ImageTextSource
from data_modules.mixing.rows import RowReader, Share, TrainingRows
from data_modules.reading.files import Tolerance
from data_modules.reading.latent_making import Encoder, make_shards
from data_modules.reading.latent_store import LatentStore, StaleLatents, StoreIndex, hash_of_pictures
from data_modules.video import VideoSource
from lit_mm.sequence import Document, Frame, Text
from lit_mm.vision import Pixels
from tests.data_modules.test_image_text import write_parquet
from tests.data_modules.video_files import moving_picture, write_video

SHARD = 10  # pictures


def write_pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    lines = []
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "caption": f"cat {i}" if i != 4 else ""}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def write_episodes(folder: Path) -> Path:
    for name, frames in {"a": 24, "b": 17}.items():
        video = write_video(folder / f"{name}.mp4", moving_picture(frames, seed=frames), g="8")
        rows = [f"{i},{3 * i},{i % 7},{i}" for i in range(frames)]
        video.with_suffix(".csv").write_text("\n".join(["frame,x,y,angle", *rows]))
    return folder


def pairs(tmp_path: Path) -> DocumentDataModule:
    module = ImageTextSource(str(write_pictures(tmp_path / "pairs", 205)))
    module.tolerance = Tolerance("skip")  # one has no caption
    return module


def bytes_in_a_table(tmp_path: Path) -> DocumentDataModule:
    contents = []
    for i in range(3):
        Image.new("RGB", (40, 32), (i, 2 * i, 9)).save(tmp_path / "picture.png")
        contents.append((tmp_path / "picture.png").read_bytes())
    return ImageTextSource(str(write_parquet(tmp_path / "table", contents)))


def clips(tmp_path: Path) -> DocumentDataModule:
    return VideoSource(str(write_episodes(tmp_path / "clips")), fps=5, frames=3, stride=1)


def actions(tmp_path: Path) -> DocumentDataModule:
    folder = str(write_episodes(tmp_path / "actions"))
    return ActionVideoSource(folder, context=2, frame_step=3, horizon=3, targets=2)


SOURCES = {"pairs": pairs, "bytes in a table": bytes_in_a_table, "clips": clips, "actions": actions}
VISION = Pixels(image_size=32, patch_size=16)


@pytest.fixture
def format(document_format: DocumentFormat) -> DocumentFormat:
    return replace(document_format, tokens_per_frame=VISION.num_tokens)


def load(module: DocumentDataModule, format: DocumentFormat) -> DocumentDataset:
    dataset = module.dataset("train", "source", format)
    assert dataset is not None
    return dataset


def index_of(dataset: DocumentDataset, **changes: object) -> StoreIndex:
    assert dataset.pictures is not None
    keys = dataset.picture_keys()
    contents = hash_of_pictures(keys, dataset.pictures.identity())
    index = StoreIndex("pixels", 32, VISION.num_tokens, VISION.channels, "float32", len(keys), contents)
    return replace(index, **changes)


def encode(images: Tensor, origins: Sequence[str]) -> Tensor:
    assert len(images) == len(origins)
    return VISION.encode(images)


def make(
    folder: Path, dataset: DocumentDataset, encoder: Encoder = encode, on_error: str = "raise", **changes: object
) -> LatentStore:
    """A whole store of a source's pictures."""
    store, keys = LatentStore(folder, index_of(dataset, **changes), SHARD), dataset.picture_keys()
    store.prepare(keys)
    assert dataset.pictures is not None
    settings = {"batch_size": 4, "workers": 0, "on_error": on_error, "advance": lambda n: None}
    make_shards(store, store.missing(), dataset.pictures, keys, encoder, **settings)
    store.open_all()
    return store


def documents(dataset: DocumentDataset) -> list[Document]:
    return [dataset.document(Draw(i, v, 0)) for v in range(len(dataset.shares)) for i in range(len(dataset))]


def frames(dataset: DocumentDataset) -> list[Frame]:
    return [s for document in documents(dataset) for s in document.segments if isinstance(s, Frame)]


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_counts_every_picture_that_its_documents_show_once(
    source: str, tmp_path: Path, format: DocumentFormat
) -> None:
    dataset = load(SOURCES[source](tmp_path), format)
    keys = dataset.picture_keys()
    assert dataset.pictures is not None
    assert all(a < b for a, b in pairwise(keys.tolist()))
    assert {dataset.pictures.origin(key) for key in keys.tolist()} == {f.origin for f in frames(dataset)}


@pytest.mark.parametrize("source", SOURCES)
def test_documents_from_a_store_are_those_from_pictures_and_open_no_file(
    source: str, tmp_path: Path, format: DocumentFormat
) -> None:
    dataset = load(SOURCES[source](tmp_path), format)
    expected = documents(dataset)
    stored = dataset.with_latents(make(tmp_path / "store", dataset))
    for file in [f for f in tmp_path.rglob("*") if f.suffix in (".png", ".mp4", ".csv", ".parquet")]:
        file.unlink()
    found = documents(pickle.loads(pickle.dumps(stored)))
    assert len(found) == len(expected)
    for before, after in zip(expected, found, strict=True):
        assert [type(s) for s in before.segments] == [type(s) for s in after.segments]
        for a, b in zip(before.segments, after.segments, strict=True):
            if isinstance(a, Text) and isinstance(b, Text):
                assert torch.equal(a.ids, b.ids)
                assert a.loss == b.loss
            elif isinstance(a, Frame) and isinstance(b, Frame):
                assert torch.equal(VISION.encode(a.image[None])[0], b.image)
                assert (a.clean, a.origin) == (b.clean, b.origin)
    with pytest.raises(BrokenFile):
        documents(pickle.loads(pickle.dumps(dataset)))


def test_origins_name_the_file_and_the_frame(tmp_path: Path, format: DocumentFormat) -> None:
    picture = frames(load(pairs(tmp_path), format))[2].origin
    assert picture == f"{tmp_path}/pairs/2.png"
    assert frames(load(bytes_in_a_table(tmp_path), format))[1].origin == f"picture 1 in {tmp_path}/table/pairs.parquet"
    dataset = load(VideoSource(str(write_video(tmp_path / "v.mp4", moving_picture(9))), fps=5, frames=5), format)
    assert [f.origin for f in frames(dataset)] == [f"{tmp_path}/v.mp4, frame {i}" for i in (0, 2, 4, 6, 8)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_latents_in_place_of_pixels(workers: int, tmp_path: Path, format: DocumentFormat) -> None:
    dataset = load(clips(tmp_path), format)
    read = []
    for latents in (None, make(tmp_path / "store", dataset)):
        reader = RowReader({"source": dataset.with_latents(latents)}, format, 64, "raise")
        rows = iter(DataLoader(TrainingRows(reader, {"source": 1.0}, 3, Share(0, 1, 2), {}), None, num_workers=workers))
        read.append([next(rows) for _ in range(4)])
    for pixels, latents in zip(*read, strict=True):
        assert torch.equal(VISION.encode(pixels.frames), latents.frames)
        assert torch.equal(pixels.tokens, latents.tokens)
        assert torch.equal(pixels.visual_positions, latents.visual_positions)
        assert pixels.frame_origins == latents.frame_origins
        assert len(pixels.frame_origins) == len(pixels.frames)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_are_the_rounded_latents_in_half_the_space(
    dtype: str, tmp_path: Path, format: DocumentFormat
) -> None:
    dataset = load(clips(tmp_path), format)
    exact, rounded = make(tmp_path / "a", dataset), make(tmp_path / "b", dataset, dtype=dtype)
    keys = dataset.picture_keys().tolist()
    for full, half in zip(exact.read(keys), rounded.read(keys), strict=True):
        assert torch.equal(full.to(getattr(torch, dtype)), half)
    sizes = [sum(f.stat().st_size for f in (tmp_path / name).glob("*.safetensors")) for name in "ab"]
    assert sizes[0] >= exact.index.picture_bytes * len(keys)
    assert sizes[1] < 0.51 * sizes[0]


def test_a_run_that_stops_leaves_whole_shards_and_the_next_makes_the_others(
    tmp_path: Path, format: DocumentFormat
) -> None:
    dataset = load(pairs(tmp_path), format)
    count, seen = len(dataset.picture_keys()), []

    def dies(images: Tensor, origins: Sequence[str]) -> Tensor:
        if len(seen) > 25:
            raise KeyboardInterrupt
        seen.extend(origins)
        return VISION.encode(images)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "store", dataset, dies)
    there = sorted(f.name for f in (tmp_path / "store").iterdir())
    assert there == ["index.json", "pictures.npy", "shard-00000.safetensors", "shard-00001.safetensors"]
    with pytest.raises(StaleLatents, match=r"shard-00002.safetensors' of the latent cache cannot be read"):
        LatentStore(tmp_path / "store", index_of(dataset), SHARD).open_all()
    later: list[str] = []

    def lives(images: Tensor, origins: Sequence[str]) -> Tensor:
        later.extend(origins)
        return VISION.encode(images)

    store = make(tmp_path / "store", dataset, lives)
    assert len(later) == count - 2 * SHARD
    assert set(later) | set(seen) == {f.origin for f in frames(dataset)}
    whole = make(tmp_path / "whole", dataset)
    keys = dataset.picture_keys().tolist()
    assert all(torch.equal(a, b) for a, b in zip(store.read(keys), whole.read(keys), strict=True))


def test_broken_pictures_end_the_run_or_are_broken_in_the_store_too(tmp_path: Path, format: DocumentFormat) -> None:
    dataset = load(pairs(tmp_path), format)
    file = tmp_path / "pairs" / "13.png"
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(BrokenFile, match=f"'{file}' broke"):
        make(tmp_path / "raise", dataset)
    stored = dataset.with_latents(make(tmp_path / "skip", dataset, on_error="skip"))
    lost = 12  # its row; the fifth has no caption and is no document
    for i in range(len(dataset)):
        if i == lost:
            with pytest.raises(BrokenFile, match=f"'{file}' broke"):
                stored.document(Draw(i, 0, 0))
        else:
            of_both = [d.document(Draw(i, 0, 0)).segments[1] for d in (dataset, stored)]
            assert torch.equal(VISION.encode(of_both[0].image[None])[0], of_both[1].image)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in folder.iterdir()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokenizer": "rae:other"}, ["'pixels'", "'rae:other'"]),
        ({"image_size": 64}, ["32-pixel", "64-pixel"]),
        ({"channels": 7}, ["768 channels", "7 channels"]),
        ({"dtype": "float16"}, ["float32", "float16"]),
        ({"layout": 2}, ["layout 1", "layout 2"]),
    ],
)
def test_a_store_of_something_else_is_refused_and_left_alone(
    changes: dict[str, object], words: list[str], tmp_path: Path, format: DocumentFormat
) -> None:
    dataset = load(clips(tmp_path), format)
    make(tmp_path / "store", dataset)
    before = snapshot(tmp_path / "store")
    with pytest.raises(StaleLatents) as refused:
        make(tmp_path / "store", dataset, **changes)
    for word in [str(tmp_path / "store"), *words]:
        assert word in str(refused.value)
    assert "\n" not in str(refused.value)
    assert snapshot(tmp_path / "store") == before


def test_a_store_of_other_pictures_is_refused(tmp_path: Path, format: DocumentFormat) -> None:
    dataset = load(clips(tmp_path), format)
    count = len(dataset.picture_keys())
    make(tmp_path / "store", dataset)
    folder = str(tmp_path / "clips")
    fewer = load(VideoSource(folder, fps=5, frames=3, stride=8), format)
    fewer_count = len(fewer.picture_keys())
    with pytest.raises(StaleLatents, match=f"of {count} pictures, but this run needs those of the {fewer_count} that"):
        make(tmp_path / "store", fewer)
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)  # with their times of change
    make(tmp_path / "store", load(VideoSource(str(moved), fps=5, frames=3, stride=1), format))
    os.utime(tmp_path / "clips" / "a.mp4")
    with pytest.raises(StaleLatents, match=r"holds latents of other pictures, .* time of change"):
        make(tmp_path / "store", load(VideoSource(folder, fps=5, frames=3, stride=1), format))


def test_a_store_with_damaged_files_is_refused(tmp_path: Path, format: DocumentFormat) -> None:
    dataset = load(clips(tmp_path), format)
    make(tmp_path / "store", dataset)
    make(tmp_path / "other", dataset, tokenizer="rae:other")
    for content in (
        (tmp_path / "store" / "shard-00000.safetensors").read_bytes()[:-100],
        b"",
        (tmp_path / "other" / "shard-00000.safetensors").read_bytes(),
        (tmp_path / "store" / "shard-00002.safetensors").read_bytes(),
    ):
        shutil.copytree(tmp_path / "store", tmp_path / "damaged")
        (tmp_path / "damaged" / "shard-00000.safetensors").write_bytes(content)
        with pytest.raises(StaleLatents, match=r"'.*/damaged/shard-00000.safetensors' .*delete it"):
            make(tmp_path / "damaged", dataset)
        shutil.rmtree(tmp_path / "damaged")
    for text in ("", "[]", "{}", '{"shard_size": 3}'):
        (tmp_path / "store" / "index.json").write_text(text)
        with pytest.raises(StaleLatents, match=r"index.json' is not the index of a latent cache"):
            make(tmp_path / "store", dataset)


def test_a_picture_the_store_never_saw_is_an_error(tmp_path: Path, format: DocumentFormat) -> None:
    store = make(tmp_path / "store", load(clips(tmp_path), format))
    with pytest.raises(KeyError, match="no picture 4567"):
        store.read([4567])

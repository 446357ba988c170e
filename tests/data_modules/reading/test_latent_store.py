"""Stored latents are those of the pictures that documents show; what is new or has changed is encoded alone."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

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
from data_modules.index.keys import cache_folder
from data_modules.index.shared_folder import SharedFolder
from data_modules.mixing.rows import RowReader, Share, TrainingRows
from data_modules.reading.files import OnError, Tolerance
from data_modules.reading.latent_making import Encode, make_shards
from data_modules.reading.latent_shards import ENDING, Encoder, StaleLatents, StoredType
from data_modules.reading.latent_store import LatentStore
from data_modules.reading.latent_table import Found, identities_of, look_for
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


def encode(images: Tensor, origins: Sequence[str]) -> Tensor:
    assert len(images) == len(origins)
    return VISION.encode(images)


def encoder(dtype: StoredType = "float32", tokenizer: str = "pixels:32/16") -> Encoder:
    return Encoder(tokenizer, VISION.num_tokens, VISION.channels, dtype)


def look(folder: Path | str, dataset: DocumentDataset, by: Encoder | None = None) -> Found:
    """What is there of a source's latents."""
    assert dataset.pictures is not None
    keys, cache = dataset.picture_keys(), cache_folder(None)
    numbers = identities_of(dataset.pictures, keys, at_once=7)
    return look_for(keys, numbers, shared(folder), by or encoder(), cache, None)


def shared(folder: Path | str) -> SharedFolder:
    return SharedFolder(str(folder), ENDING, "folder")


def make(
    folder: Path | str,
    dataset: DocumentDataset,
    encode: Encode = encode,
    on_error: OnError = "raise",
    by: Encoder | None = None,
) -> LatentStore:
    """All latents of a source's pictures, of which those that are missing are encoded."""
    missing = dataset.picture_keys()[look(folder, dataset, by).missing]
    shards = [missing[start : start + SHARD] for start in range(0, len(missing), SHARD)]
    assert dataset.pictures is not None
    settings: dict[str, Any] = {"batch_size": 4, "workers": 0, "on_error": on_error, "advance": lambda n: None}
    make_shards(shared(folder), by or encoder(), shards, dataset.pictures, encode, **settings)
    found = look(folder, dataset, by)
    assert not len(found.missing)
    return LatentStore(found.table, by or encoder())


class Counting:
    """Encodes, and notes down of which pictures."""

    def __init__(self) -> None:
        self.origins: list[str] = []

    def __call__(self, images: Tensor, origins: Sequence[str]) -> Tensor:
        self.origins += origins
        return encode(images, origins)


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
    dtype: StoredType, tmp_path: Path, format: DocumentFormat
) -> None:
    dataset = load(clips(tmp_path), format)
    exact, rounded = make(tmp_path / "a", dataset), make(tmp_path / "b", dataset, by=encoder(dtype))
    keys = dataset.picture_keys().tolist()
    for full, half in zip(exact.read(keys), rounded.read(keys), strict=True):
        assert torch.equal(full.to(getattr(torch, dtype)), half)
    sizes = [sum(f.stat().st_size for f in (tmp_path / name).glob("*.safetensors")) for name in "ab"]
    assert sizes[0] >= exact.encoder.picture_bytes * len(keys)
    assert sizes[1] < 0.52 * sizes[0]


def test_encoders_and_formats_have_folders_of_their_own() -> None:
    names = {
        encoder(dtype, tokenizer).name for dtype in ("float32", "float16") for tokenizer in ("a:1", "a:2", "é/..:1")
    }
    assert len(names) == 6
    assert all(re.fullmatch(r"[a-z0-9_]+-[0-9a-f]{12}-float(16|32)", name) for name in names)
    assert encoder(tokenizer="rae:dino/b:0123").name.startswith("rae-")


def shards_in(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.safetensors")}


def test_a_run_that_stops_leaves_whole_files_and_the_next_makes_the_others(
    tmp_path: Path, format: DocumentFormat
) -> None:
    dataset = load(pairs(tmp_path), format)
    count, first = len(dataset.picture_keys()), Counting()

    def dies(images: Tensor, origins: Sequence[str]) -> Tensor:
        if len(first.origins) > 25:
            raise KeyboardInterrupt
        return first(images, origins)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "store", dataset, dies)
    left = shards_in(tmp_path / "store")
    assert len(left) == 2
    assert len(look(tmp_path / "store", dataset).missing) == count - 2 * SHARD
    later = Counting()
    store = make(tmp_path / "store", dataset, later)
    assert len(later.origins) == count - 2 * SHARD
    assert {*later.origins, *first.origins} == {f.origin for f in frames(dataset)}
    assert left.items() <= shards_in(tmp_path / "store").items()
    whole = make(tmp_path / "whole", dataset)
    assert shards_in(tmp_path / "whole").keys() == shards_in(tmp_path / "store").keys()
    keys = dataset.picture_keys().tolist()
    assert all(torch.equal(a, b) for a, b in zip(store.read(keys), whole.read(keys), strict=True))


def check(store: LatentStore, dataset: DocumentDataset) -> None:
    """Latents are those of the pictures as they now are."""
    assert dataset.pictures is not None
    for key in dataset.picture_keys().tolist():
        (image,), (latents,) = dataset.pictures.read([key]), store.read([key])
        assert torch.equal(VISION.encode(image[None])[0], latents)


def test_a_source_that_grows_keeps_its_latents(tmp_path: Path, format: DocumentFormat) -> None:
    write_pictures(tmp_path / "pairs", 13)
    before = load(ImageTextSource(str(tmp_path / "pairs")), format)
    make(tmp_path / "store", before)
    made = shards_in(tmp_path / "store")
    lines = (tmp_path / "pairs" / "metadata.jsonl").read_text().splitlines()
    for i in range(13, 16):
        Image.new("RGB", (40, 40), (i, 0, 0)).save(tmp_path / "pairs" / f"{i}.png")
        lines.insert(0, json.dumps({"file_name": f"{i}.png", "caption": f"cat {i}"}))  # all others move
    lines.append(json.dumps({"file_name": "15.png", "caption": "the same picture again"}))
    (tmp_path / "pairs" / "metadata.jsonl").write_text("\n".join(lines))
    Image.new("RGB", (40, 40), (99, 0, 0)).save(tmp_path / "pairs" / "3.png")  # another picture
    grown, counting = load(ImageTextSource(str(tmp_path / "pairs")), format), Counting()
    store = make(tmp_path / "store", grown, counting)
    assert sorted(Path(origin).name for origin in counting.origins) == ["13.png", "14.png", "15.png", "3.png"]
    assert made.items() <= shards_in(tmp_path / "store").items()
    check(store, grown)
    assert look(tmp_path / "store", grown).unused == 1, "that of the file which changed"


def test_other_frames_of_the_same_videos_are_encoded_alone(tmp_path: Path, format: DocumentFormat) -> None:
    folder = write_episodes(tmp_path / "clips")
    few = load(VideoSource(str(folder), fps=5, frames=2, stride=8), format)
    make(tmp_path / "store", few)
    more, counting = load(VideoSource(str(folder), fps=10, frames=3, stride=1), format), Counting()
    check(make(tmp_path / "store", more, counting), more)
    assert len(counting.origins) == len(more.picture_keys()) - len(few.picture_keys())
    check(LatentStore(look(tmp_path / "store", few).table, encoder()), few)


def test_broken_pictures_end_the_run_or_are_broken_in_the_store_too(tmp_path: Path, format: DocumentFormat) -> None:
    dataset = load(pairs(tmp_path), format)
    file = tmp_path / "pairs" / "13.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:900])
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
    file.write_bytes(whole)
    check(make(tmp_path / "skip", dataset), dataset)


def test_files_that_are_cut_or_of_something_else_are_said_and_made_again(
    tmp_path: Path, format: DocumentFormat, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = load(clips(tmp_path), format)
    make(tmp_path / "store", dataset)
    make(tmp_path / "other", dataset, by=encoder(tokenizer="rae:other"))
    make(tmp_path / "half", dataset, by=encoder("float16"))
    name = min(shards_in(tmp_path / "store"))
    file = tmp_path / "store" / name
    for content, reason in (
        (file.read_bytes()[:-100], "it is cut"),
        (file.read_bytes()[:50], "it is cut"),
        (b"", "it is cut"),
        (
            (tmp_path / "other" / name).read_bytes(),
            "it is of the visual tokenizer 'rae:other' and not of 'pixels:32/16'",
        ),
        ((tmp_path / "half" / name).read_bytes(), "it holds latents .*F16"),
    ):
        caplog.clear()
        file.write_bytes(content)
        assert len(look(tmp_path / "store", dataset).missing) > 0
        assert re.search(f"{name}' of the latent cache cannot be used \\({reason}.*delete it", caplog.text)
        check(make(tmp_path / "store", dataset), dataset)
    store = LatentStore(look(tmp_path / "store", dataset).table, encoder())
    file.unlink()
    with pytest.raises(StaleLatents, match=f"{name}' of the latent cache is gone; start again to make it anew"):
        check(store, dataset)


def test_a_damaged_table_is_made_again(tmp_path: Path, format: DocumentFormat) -> None:
    dataset = load(clips(tmp_path), format)
    make(tmp_path / "store", dataset)
    table = look(tmp_path / "store", dataset).table
    for file in (table, table.with_suffix(".json")):
        content = file.read_bytes()
        for cut in (0, 5, len(content) // 2):
            file.write_bytes(content[:cut])
            check(LatentStore(look(tmp_path / "store", dataset).table, encoder()), dataset)


def test_two_that_make_the_same_at_once_make_it_once(tmp_path: Path, format: DocumentFormat) -> None:
    """One begins when the other has made one file, and both write all that is left."""
    dataset, begun = load(clips(tmp_path), format), []

    def and_another(images: Tensor, origins: Sequence[str]) -> Tensor:
        if any((tmp_path / "store").glob("*.safetensors")) and not begun:
            begun.append(make(tmp_path / "store", dataset))
        return encode(images, origins)

    check(make(tmp_path / "store", dataset, and_another), dataset)
    check(begun[0], dataset)
    assert len(shards_in(tmp_path / "store")) == -(-len(dataset.picture_keys()) // SHARD)
    assert not [file for file in (tmp_path / "store").iterdir() if file.name.startswith(".")]


def test_a_picture_that_was_never_there_is_an_error(tmp_path: Path, format: DocumentFormat) -> None:
    store = make(tmp_path / "store", load(clips(tmp_path), format))
    with pytest.raises(KeyError, match="no latents of all pictures"):
        store.read([4567])

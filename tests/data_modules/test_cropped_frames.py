"""Frames of every layout, and pictures of conversations and pages, become squares by the rule that is stated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_modules.conversation import ConversationSource
from data_modules.dataset import DocumentDataset, DocumentFormat, Draw
from data_modules.interleaved import InterleavedSource
from data_modules.reading.cropping import Cropping
from lit_mm.mistake import Mistake
from tests.data_modules.test_action_layouts import load as load_actions
from tests.data_modules.test_action_layouts import shown, written
from tests.data_modules.test_video_layouts import load, write_frames
from tests.data_modules.video_files import decode_all, moving_picture, write_video
from tests.helpers.tars import write_tar

HEIGHT, WIDTH = 24, 48
KEPT = {"squash": (0, 0, WIDTH, HEIGHT), "four_thirds": (8, 0, 40, HEIGHT)}  # left, top, right, bottom


@pytest.mark.parametrize("rule", KEPT)
def test_the_stated_part_of_a_frame_is_shown(rule: Any, tmp_path: Path, document_format: DocumentFormat) -> None:
    pictures, crop = moving_picture(4, HEIGHT, WIDTH), Cropping(rule)
    video = write_video(tmp_path / "0.mp4", pictures)
    tar = write_tar(tmp_path / "0.tar", [("0.mp4", video.read_bytes())])
    frames = write_frames(tmp_path / "frames/0", pictures).parent
    with h5py.File(tmp_path / "0.hdf5", "w") as file:
        file["top"] = np.stack(pictures)
    decoded = decode_all(video)
    clips = [(video, decoded, {}), (tar, decoded, {}), (frames, pictures, {"frame_rate": 10})]
    clips.append((tmp_path / "0.hdf5", pictures, {"frame_rate": 10, "camera": "top"}))
    for path, whole, options in clips:
        dataset = load(path, document_format, crop=crop, **options)
        check(shown(dataset.document(Draw(0, 0, 0))), whole, rule)
        assert numbers_of(dataset) != numbers_of(load(path, document_format, **options))
    walked = load_actions(video, document_format, crop=crop, text="go {steps}")
    for _, start, _, _, document in written(walked, document_format):
        check(shown(document)[:1], decoded[start:], rule)


@pytest.mark.parametrize("rule", KEPT)
def test_the_stated_part_of_a_picture_is_read(rule: Any, tmp_path: Path, document_format: DocumentFormat) -> None:
    (wide,) = moving_picture(1, HEIGHT, WIDTH)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    stored = {"bytes": (tmp_path / "wide.png").read_bytes(), "path": None}
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a square"}]
    kinds: dict[Any, dict[str, Any]] = {
        ConversationSource: {"conversations": turns, "image": "wide.png"},
        InterleavedSource: {"texts": [None, "a square"], "images": ["wide.png", None]},
    }
    for kind, entry in kinds.items():
        image = "image" if "image" in entry else "images"
        inside = {**entry, image: stored if image == "image" else [stored, None]}
        pq.write_table(pa.Table.from_pylist([inside]), tmp_path / "a.parquet")
        (tmp_path / "a.jsonl").write_text(json.dumps(entry))
        for file in ("a.jsonl", "a.parquet"):
            dataset, plain = (
                kind(str(tmp_path / file), crop=crop).dataset("train", "x", document_format)
                for crop in (Cropping(rule), Cropping())
            )
            squares = shown(dataset.document(Draw(0, 0, 0)))
            assert squares
            check(squares, [wide] * len(squares), rule)
            assert numbers_of(dataset) != numbers_of(plain)


def numbers_of(dataset: DocumentDataset) -> list[int]:
    assert dataset.pictures is not None
    return dataset.pictures.identities(dataset.picture_keys()).tolist()


def check(squares: list[np.ndarray], whole: list[np.ndarray], rule: str) -> None:
    for square, frame in zip(squares, whole, strict=False):
        expected = Image.fromarray(frame).crop(KEPT[rule]).resize((32, 32), Image.Resampling.BICUBIC)
        assert np.abs(square - np.array(expected, np.float64)).mean() < 1.5


def test_what_belongs_together_is_not_cut_at_random() -> None:
    with pytest.raises(Mistake, match="crop.rule is random, which is for pairs; give centre, squash or four"):
        load("x", None, crop=Cropping("random", 48))  # type: ignore[arg-type]
    with pytest.raises(Mistake, match="crop.rule is random, which is for pairs"):
        load_actions("x", None, crop=Cropping("random", 48))  # type: ignore[arg-type]
    for kind in (ConversationSource, InterleavedSource):
        with pytest.raises(Mistake, match="crop.rule is random, which is for pairs"):
            kind("x", crop=Cropping("random", 48))

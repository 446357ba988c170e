"""Clips of folders of frames and of videos in tars are those of the same videos as files; captions are theirs."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.mixing.rows import RowReader, Share, TrainingRows
from data_modules.reading.files import Tolerance
from data_modules.video import VideoDataset, VideoSource
from lit_mm.mistake import MissingFile, Mistake
from lit_mm.packing import pack_rows
from lit_mm.sequence import IGNORE, Document, Frame, PackedRow
from tests.data_modules.video_files import moving_picture, write_video
from tests.helpers.tars import write_tar


def load(path: Path | str, format: DocumentFormat, on_error: str = "raise", **options: Any) -> VideoDataset:
    module = VideoSource(str(path), **{"fps": 10, "frames": 4} | options)
    module.tolerance = Tolerance(on_error)
    dataset = module.dataset("train", "clips", format)
    assert dataset is not None
    return pickle.loads(pickle.dumps(dataset))


def frames_of(document: Document) -> list[Frame]:
    return [s for s in document.segments if isinstance(s, Frame)]


def clips_of(dataset: VideoDataset, variant: int = 0) -> set[bytes]:
    """Pixels of every clip."""
    drawn = (dataset.document(Draw(i, variant, 0)) for i in range(len(dataset)))
    return {b"".join(f.image.numpy().tobytes() for f in frames_of(document)) for document in drawn}


def write_frames(
    folder: Path, pictures: list[np.ndarray], name: str = "{:06}.png", times: Sequence[float | str] | None = None
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / name.format(times[number] if times else number))
    return folder


def test_folders_of_frames(tmp_path: Path, document_format: DocumentFormat) -> None:
    """Something-Something and others as they are cut into pictures; 9 follows on 8 and not on 89."""
    pictures = moving_picture(12)
    write_frames(tmp_path / "a" / "100218", pictures, "{}.png")
    write_frames(tmp_path / "a" / "deeper" / "7", pictures[:8], "img_{:05}.png")
    (tmp_path / "a" / ".thumbnails").mkdir()
    dataset = load(tmp_path / "a", document_format, frame_rate=10)
    whole = [torch.from_numpy(p).permute(2, 0, 1).contiguous().numpy().tobytes() for p in pictures]
    assert clips_of(dataset) == {b"".join(whole[i : i + 4]) for i in (0, 4, 8)}
    assert len(dataset) == 5
    assert clips_of(load(tmp_path / "a" / "1*", document_format, frame_rate=10)) == clips_of(dataset)
    every_second = load(tmp_path / "a" / "100218", document_format, frame_rate=20)
    assert clips_of(every_second) == {b"".join(whole[0:8:2])}


@pytest.mark.parametrize("names", ["{:.6f}.png", "{:.0f}.png", "stamps"])
def test_frames_with_time_stamps_are_shown_at_their_time(
    names: str, tmp_path: Path, document_format: DocumentFormat
) -> None:
    """At 0, 0.5, 1, 1.5 and 2 seconds the last frame that was taken is on the screen."""
    pictures, times = moving_picture(7), [0.0, 0.1, 0.2, 0.9, 1.0, 1.9, 2.3]
    start = 1305031102.175304
    if names == "stamps":
        folder = write_frames(tmp_path / "a", pictures)
        (folder / "timestamps.txt").write_text("# seconds\n" + "".join(f"{start + t} 0 0\n" for t in times))
        rate = "timestamps.txt"
    else:
        scale = 1e9 if names == "{:.0f}.png" else 1.0
        folder, rate = write_frames(tmp_path / "a", pictures, names, [(start + t) * scale for t in times]), "names"
    dataset = load(folder, document_format, fps=2, frames=5, frame_rate=rate)
    shown = [f.image.permute(1, 2, 0).numpy() for f in frames_of(dataset.document(Draw(0, 0, 0)))]
    assert [next(i for i, p in enumerate(pictures) if np.array_equal(p, s)) for s in shown] == [0, 2, 4, 4, 5]


def test_frames_that_say_too_little(tmp_path: Path, document_format: DocumentFormat) -> None:
    folder = write_frames(tmp_path / "a", moving_picture(5))
    with pytest.raises(Mistake, match=r"data.train: '.*/a' does not say how long its frames last; give frame_rate"):
        load(folder, document_format)
    with pytest.raises(Mistake, match="frame_rate: 0 frames per second"):
        load(folder, document_format, frame_rate=0)
    (folder / "timestamps.txt").write_text("0\n1\n2\n")
    with pytest.raises(BrokenFile, match=r"timestamps.txt' .*: it has 3 time stamps for 5 frames"):
        load(folder, document_format, frame_rate="timestamps.txt")
    (folder / "timestamps.txt").write_text("0\n1\n2\n2\n3\n")
    with pytest.raises(BrokenFile, match=r"the time stamps do not go up from '000002.png' to the next"):
        load(folder, document_format, frame_rate="timestamps.txt")
    Image.new("RGB", (32, 32)).save(folder / "3.png")
    with pytest.raises(BrokenFile, match=r"its number is that of '.*3.png'"):
        load(folder, document_format, frame_rate=10)
    for one, other in (("2026-01-01 12.00.59", "2026-01-01 12.01.00"), ("shot1.9", "shot1.10"), ("7_2", "8_1")):
        folder = write_frames(tmp_path / one, moving_picture(2), "{}.png", [one, other])
        with pytest.raises(BrokenFile, match=r"by the last number of its name it follows on '.*', by all of them it"):
            load(folder, document_format, frame_rate=10)
    folder = tmp_path / "a"
    (folder / "3.png").rename(folder / "cover.png")
    with pytest.raises(BrokenFile, match=r"cover.png' .*: its name has no number"):
        load(folder, document_format, frame_rate=10)


@pytest.fixture
def webvid(tmp_path: Path) -> Path:
    """Three videos as files, and the same in a tar with captions in .txt and .json, as video2dataset writes them."""
    members = []
    for number in range(3):
        path = write_video(tmp_path / "files" / f"{number:03}.mp4", moving_picture(8, seed=number), g="4", bf="2")
        members += [(f"{number:03}.mp4", path.read_bytes())]
        if number != 1:
            (tmp_path / "files" / f"{number:03}.txt").write_text(f"a cat {number}\n")
            members += [(f"{number:03}.txt", f"a cat {number}".encode())]
            members += [(f"{number:03}.json", json.dumps({"meta": {"caption": f"a ball {number}"}}).encode())]
    write_tar(tmp_path / "tars" / "00000.tar", members)
    return tmp_path


def test_videos_in_tars_are_read_where_they_lie(webvid: Path, document_format: DocumentFormat) -> None:
    files, tars = (load(webvid / name, document_format) for name in ("files", "tars"))
    assert len(tars) == 6
    assert clips_of(tars) == clips_of(files)
    assert tars.pictures.origin(int(tars.picture_keys()[0])) == f"{webvid}/tars/00000.tar/000.mp4, frame 0"


def texts(document: Document, format: DocumentFormat) -> str:
    batch = pack_rows(
        [PackedRow((document,), 0, 0)],
        length=document.length(4),
        tokens_per_frame=4,
        image_size=32,
        pad_id=format.tokenizer.pad_id,
        sources=("clips",),
    )
    predicted = batch.targets[0][batch.targets[0] != IGNORE]
    return f"{format.tokenizer.decode(batch.tokens[0][batch.frame_ids[0] < 0])} | {format.tokenizer.decode(predicted)}"


@pytest.mark.parametrize(
    ("folder", "captions", "word"),
    [("files", "txt", "cat"), ("tars", "txt", "cat"), ("tars", "json.meta.caption", "ball")],
)
def test_captions_stand_before_or_behind_their_clip(
    folder: str,
    captions: str,
    word: str,
    webvid: Path,
    document_format: DocumentFormat,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = load(webvid / folder, document_format, captions=captions, frames=2, caption_first=0.5)
    assert "1 of 3 videos have no caption and are shown without one" in caplog.text
    assert dataset.shares == pytest.approx((0.45, 0.05, 0.5))
    plain = load(webvid / "files", document_format, frames=2)
    for index in range(len(dataset)):
        documents = [dataset.document(Draw(index, variant, 0)) for variant in range(3)]
        assert [d.length(4) for d in documents] == dataset.lengths[:, index].tolist()
        same = plain.document(Draw(index, 0, 0))
        for document in documents:
            assert all(torch.equal(a.image, b.image) for a, b in zip(frames_of(document), frames_of(same), strict=True))
        row, _ = dataset.clips.locate(int(dataset.order[index]))
        caption = f"a {word} {row}"
        without = "<bos><boi><eoi><boi><eoi><eos> | <boi><eos>"
        if row == 1:
            assert [texts(d, document_format) for d in documents] == [without] * 3
            continue
        before, unconditional, behind = documents
        shown = f"<bos>{caption}<boi><eoi><boi><eoi><eos> | {caption}<boi><boi><eos>"
        assert texts(before, document_format) == shown
        assert texts(unconditional, document_format) == without
        assert texts(behind, document_format) == f"<bos><boi><eoi><boi><eoi>{caption}<eos> | {caption}<eos>"
        assert [f.clean for f in frames_of(behind)] == [True, True]
        assert not any(f.clean for f in (*frames_of(before), *frames_of(unconditional)))


def test_captions_in_tables(webvid: Path, document_format: DocumentFormat) -> None:
    """Something-Something's JSON of labels, WebVid's CSV and one that names files by their path."""
    labels = [{"id": f"{i:03}", "label": f"holding cat {i}", "template": "Holding [something]"} for i in range(3)]
    (webvid / "train.json").write_text(json.dumps(labels))
    (webvid / "webvid.csv").write_text("videoid,name\n" + "".join(f"{i:03},holding cat {i}\n" for i in range(3)))
    (webvid / "paths.jsonl").write_text(
        "".join(json.dumps({"video": f"files/{i:03}.mp4", "caption": f"holding cat {i}"}) + "\n" for i in range(3))
    )
    for options in (
        {"captions": webvid / "train.json", "name_column": "id", "caption_column": "label"},
        {"captions": webvid / "webvid.csv", "name_column": "videoid", "caption_column": "name"},
        {"captions": webvid / "paths.jsonl"},
    ):
        dataset = load(webvid / "files", document_format, **options | {"captions": str(options["captions"])})
        rows = [dataset.clips.locate(int(dataset.order[i]))[0] for i in range(len(dataset))]
        found = [texts(dataset.document(Draw(i, 0, 0)), document_format) for i in range(len(dataset))]
        assert all(text.startswith(f"<bos>holding cat {row}<boi>") for row, text in zip(rows, found, strict=True))
    short = load(webvid / "files", document_format, captions=str(webvid / "paths.jsonl"), max_caption=1)
    assert short.captions_cut == len(short) == len(dataset)
    assert dataset.captions_cut == 0
    with pytest.raises(
        Mistake, match=r"train.json' has no column 'video' \(name_column\); there are id, label and templ"
    ):
        load(webvid / "files", document_format, captions=str(webvid / "train.json"))
    with pytest.raises(MissingFile, match=r"captions is '.*none.csv', and there is no such table"):
        load(webvid / "files", document_format, captions=str(webvid / "none.csv"))
    with pytest.raises(Mistake, match=r"captions is 'vtt', but none of 3 videos .* has one there"):
        load(webvid / "files", document_format, captions="vtt")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet"])
def test_the_same_captions_in_every_table(name: str, webvid: Path, document_format: DocumentFormat) -> None:
    """With a mark of byte order, names that are numbers, and a caption of many kinds of characters."""
    rows = [{"video": f"{i:03}", "caption": f'a "cat" {i},\u2028null;\tit is'} for i in range(3)]
    file = webvid / name
    if file.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(file)
    elif file.suffix in (".csv", ".tsv"):
        pd.DataFrame(rows).to_csv(file, index=False, sep="," if file.suffix == ".csv" else "\t", encoding="utf-8-sig")
    else:
        listed = [json.dumps(row, ensure_ascii=False) for row in rows]
        file.write_text("\n".join(listed) if file.suffix == ".jsonl" else f"[{','.join(listed)}]", "utf-8-sig")
    dataset = load(webvid / "files", document_format, captions=str(file), frames=8)
    found = [texts(dataset.document(Draw(i, 0, 0)), document_format) for i in range(3)]
    expected = {document_format.tokenizer.decode(document_format.tokenizer.encode(row["caption"])) for row in rows}
    assert {text.partition("<bos>")[2].partition("<boi>")[0] for text in found} == expected


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (
            '{"video": "000", "caption": "a"}\n{"video": "000", "caption": "b"}\n',
            Mistake,
            "has several captions of '000'",
        ),
        ('{"video": "000", "caption": "a"}\n{"video": "001"\n', BrokenFile, r"line 2 is not a JSON object \(Expecting"),
    ],
)
def test_a_table_that_does_not_say_which_caption_is_refused(
    content: str, error: type[Exception], words: str, webvid: Path, document_format: DocumentFormat
) -> None:
    (webvid / "a.jsonl").write_text(content)
    with pytest.raises(error, match=words):
        load(webvid / "files", document_format, captions=str(webvid / "a.jsonl"))


def test_two_videos_of_one_name_do_not_share_a_caption(tmp_path: Path, document_format: DocumentFormat) -> None:
    for number in range(2):
        write_frames(tmp_path / f"{number}/clip", moving_picture(8, seed=number))
    table = tmp_path / "captions.csv"
    table.write_text("video,caption\nclip,cat\n")
    with pytest.raises(
        Mistake, match=r"'clip' of '.*captions.csv' may be '.*0/clip' or '.*1/clip'; name them by their"
    ):
        load(tmp_path, document_format, captions=str(table), frame_rate=10, frames=8)
    table.write_text("video,caption\n0/clip,cat 0\n1/clip,cat 1\n")
    dataset = load(tmp_path, document_format, captions=str(table), frame_rate=10, frames=8)
    found = {texts(dataset.document(Draw(i, 0, 0)), document_format).partition("<boi>")[0] for i in range(2)}
    assert found == {"<bos>cat 0", "<bos>cat 1"}


def test_folders_whose_names_have_dots_have_their_own_captions(tmp_path: Path, document_format: DocumentFormat) -> None:
    for number in range(2):
        write_frames(tmp_path / f"clip.{number}", moving_picture(8, seed=number))
        (tmp_path / f"clip.{number}.txt").write_text(f"cat {number}")
    dataset = load(tmp_path, document_format, captions="txt", frame_rate=10, frames=8)
    found = {texts(dataset.document(Draw(i, 0, 0)), document_format).partition("<boi>")[0] for i in range(2)}
    assert found == {"<bos>cat 0", "<bos>cat 1"}


def test_a_caption_that_cannot_be_read_is_named(webvid: Path, document_format: DocumentFormat) -> None:
    (webvid / "files" / "002.txt").write_bytes(b"caf\xe9")
    with pytest.raises(BrokenFile, match=r"002.txt' broke while being read: 'utf-8' codec"):
        load(webvid / "files", document_format, captions="txt")


def test_a_run_goes_on_with_the_next_row(webvid: Path, document_format: DocumentFormat) -> None:
    dataset = load(webvid / "tars", document_format, captions="txt", frames=2)
    reader = RowReader({"clips": dataset}, document_format, row_length=64, on_error="raise")
    start = TrainingRows(reader, {"clips": 1.0}, 3, Share(0, 1, 1), {})
    drawn = [
        piece.draw.variant for planner in [start.planner()] for _ in range(600) for piece in planner.next_row().pieces
    ]
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    assert shares == pytest.approx(dataset.shares, abs=4 * np.sqrt(0.25 / len(drawn)))
    unbroken = list(islice(iter(start), 5))
    going_on = TrainingRows(reader, {"clips": 1.0}, 3, Share(0, 1, 1), unbroken[1].plan_state)
    for batch, expected in zip(islice(iter(going_on), 3), unbroken[2:], strict=True):
        assert torch.equal(batch.tokens, expected.tokens)
        assert torch.equal(batch.frames, expected.frames)


def test_a_cut_tar_is_named(webvid: Path, document_format: DocumentFormat) -> None:
    tar = webvid / "tars" / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:-20000])
    with pytest.raises(BrokenFile, match=r"00000.tar"):
        load(webvid / "tars", document_format)

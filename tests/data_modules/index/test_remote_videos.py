"""Videos in tars on other machines are the clips of the same tars on a disk."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.index.input_files import find_input_files
from data_modules.index.range_cache import RangeCache
from data_modules.index.ranges import RangeReader
from data_modules.reading import file_part
from data_modules.reading.file_part import RemotePart
from data_modules.reading.found_recordings import Layout, find_recordings
from data_modules.video import VideoDataset, VideoSource
from lit_mm.mistake import MissingFile
from tests.data_modules.test_action_layouts import load as load_actions
from tests.data_modules.test_action_layouts import shown, written
from tests.data_modules.test_video_layouts import clips_of, load, texts
from tests.data_modules.video_files import decode_all, moving_picture, write_video
from tests.helpers.tars import write_tar
from tests.helpers.web_server import Server

FRAMES = 12


def numbers_of(dataset: VideoDataset) -> set[int]:
    assert dataset.pictures is not None
    return {*dataset.pictures.identities(dataset.picture_keys()).tolist()}


def tar_of_videos(folder: Path, tar: int, videos: int = 2) -> Path:
    """Videos with captions and tables."""
    members = []
    for number in range(videos * tar, videos * (tar + 1)):
        video = write_video(folder / "made" / f"{number:03}.mp4", moving_picture(FRAMES, seed=number), g="4", bf="2")
        table = pd.DataFrame({"frame": range(FRAMES), "keys": [f"key {number}.{i}" for i in range(FRAMES)]})
        members += [(f"{number:03}.mp4", video.read_bytes()), (f"{number:03}.txt", f"a cat {number}".encode())]
        members += [(f"{number:03}.csv", table.to_csv(index=False).encode())]
    return write_tar(folder / f"{tar}.tar", members)


def test_clips_and_captions(server: Server, document_format: DocumentFormat) -> None:
    for tar in range(2):
        tar_of_videos(server.folder, tar)
    options: dict[str, Any] = {"captions": "txt"}
    url = f"{server.url}/{{0..1}}.tar"
    remote, local = load(url, document_format, **options), load(server.folder / "*.tar", document_format, **options)
    assert len(remote) == 2 * 2 * FRAMES // 4
    assert clips_of(remote) == clips_of(local)
    told = [{texts(d.document(Draw(i, 2, 0)), document_format) for i in range(len(d))} for d in (remote, local)]
    assert told[0] == told[1]
    assert {text.partition(" | ")[2] for text in told[0]} == {f"a cat {number}<eos>" for number in range(4)}
    asked = server.asked.total()
    load(url, document_format, **options)
    assert server.asked.total() - asked <= 2 * 2, "what is known of a tar is only looked up"
    before = numbers_of(remote)
    tar_of_videos(server.folder, 1)  # anew
    after = numbers_of(load(url, document_format, **options))
    assert len(after - before) == len(before - after) == 2 * FRAMES, "those of one tar"


@pytest.fixture
def plain(server: Server) -> Path:
    """Videos of the server's folder, each with its caption and its table beside it."""
    for number in range(3):
        video = write_video(server.folder / f"{number:03}.mp4", moving_picture(FRAMES, seed=number), g="4", bf="2")
        video.with_suffix(".txt").write_text(f"a cat {number}")
        table = pd.DataFrame({"frame": range(FRAMES), "keys": [f"key {number}.{i}" for i in range(FRAMES)]})
        table.to_csv(video.with_suffix(".csv"), index=False)
    return server.folder


def test_plain_videos(server: Server, plain: Path, document_format: DocumentFormat) -> None:
    url, options = f"{server.url}/{{000..002}}.mp4", {"captions": "txt"}
    remote, local = load(url, document_format, **options), load(plain, document_format, **options)
    assert clips_of(remote) == clips_of(local)

    def told() -> set[str]:
        clips = load(url, document_format, **options)
        return {texts(clips.document(Draw(i, 2, 0)), document_format) for i in range(len(clips))}

    assert told() == {texts(local.document(Draw(i, 2, 0)), document_format) for i in range(len(local))}
    (plain / "001.txt").write_text("another dog")
    (plain / "002.txt").unlink()
    assert {text.partition(" | ")[2] for text in told() if " | " in text and not text.endswith("<boi><eos>")} == {
        "a cat 0<eos>",
        "another dog<eos>",
    }
    write_video(plain / "000.mp4", moving_picture(FRAMES, seed=9), g="4", bf="2")
    after, before = numbers_of(load(url, document_format)), numbers_of(remote)
    assert len(after - before) == len(before - after) == FRAMES
    (plain / "001.mp4").write_bytes(b"no video")
    with pytest.raises(BrokenFile, match=r"http://.*/001.mp4' broke while being read: it is no video"):
        load(url, document_format)
    with pytest.raises(MissingFile, match=r"data.train: there is no file or folder 'http://.*/003.mp4'"):
        load(f"{server.url}/003.mp4", document_format)


def test_plain_videos_with_actions(server: Server, plain: Path, document_format: DocumentFormat) -> None:
    url = f"{server.url}/{{000..002}}.mp4"
    remote, local = (load_actions(path, document_format, text="{keys}") for path in (url, plain))
    for there, here in zip(written(remote, document_format), written(local, document_format), strict=True):
        assert there[:4] == here[:4]
        assert all((a == b).all() for a, b in zip(shown(there[4]), shown(here[4]), strict=True))
    (plain / "001.csv").write_text("frame,keys\n0,W\n")
    with pytest.raises(BrokenFile, match=r"001.csv' .*: it has 1 rows but '001.mp4' has 12 frames"):
        load_actions(url, document_format, text="{keys}")
    (plain / "001.csv").unlink()
    with pytest.raises(BrokenFile, match=r"001.mp4' .*there is no table beside it; add '001.csv'"):
        load_actions(url, document_format, text="{keys}")


def test_many_are_looked_up_at_once(server: Server, plain: Path, document_format: DocumentFormat) -> None:
    for number in range(3, 12):
        for ending in ("mp4", "txt", "csv"):
            shutil.copy(plain / f"000.{ending}", plain / f"{number:03}.{ending}")
    url = f"{server.url}/{{000..011}}.mp4"
    server.wait = 0.05
    assert len(find_recordings(url, "data.train", Layout())) == 12
    found, server.most = server.most, 0
    load_actions(url, document_format, text="{keys}")
    beside, server.most = server.most, 0
    load(url, document_format, captions="txt")
    assert min(found, beside, server.most) > 4


def test_a_caption_that_does_not_come(server: Server, plain: Path, document_format: DocumentFormat) -> None:
    server.failures["/002.txt"] = [500] * 100
    with pytest.raises(BrokenFile, match=r"002\.txt' broke while being read: 6 attempts failed"):
        load(f"{server.url}/{{000..002}}.mp4", document_format, captions="txt")


def test_what_is_read_is_kept(server: Server, tmp_path: Path, document_format: DocumentFormat) -> None:
    tar_of_videos(server.folder, 0)
    module = VideoSource(f"{server.url}/0.tar", fps=10, frames=4)
    module.range_cache = RangeCache(tmp_path / "ranges", 10**10)
    dataset = module.dataset("train", "clips", document_format)
    assert dataset is not None
    clips_of(pickle.loads(pickle.dumps(dataset)))
    asked = server.asked.total()
    assert clips_of(pickle.loads(pickle.dumps(dataset)))
    assert server.asked.total() == asked


@pytest.mark.parametrize("place", ["local", "remote"])
def test_actions_beside_videos_in_tars(place: str, server: Server, document_format: DocumentFormat) -> None:
    tar = tar_of_videos(server.folder, 0)
    path = f"{server.url}/0.tar" if place == "remote" else tar
    dataset = load_actions(path, document_format, text="{keys}")
    full = [decode_all(server.folder / "made" / f"{number:03}.mp4") for number in range(2)]
    seen = set()
    for row, start, stop, action, document in written(dataset, document_format):
        assert action == ", then ".join(f"key {row}.{i}" for i in range(start, stop))
        assert (shown(document)[0] == full[row][start]).all()
        seen.add((row, start, stop))
    assert len(seen) == 2 * (3 * FRAMES - 6)
    video = (server.folder / "made" / "000.mp4").read_bytes()
    write_tar(tar, [("000.mp4", video), ("000.csv", b"frame,keys\n0,W\n")])
    with pytest.raises(BrokenFile, match=r"0.tar/000.csv' .*: it has 1 rows but '000.mp4' has 12 frames"):
        load_actions(path, document_format, text="{keys}")
    write_tar(tar, [("000.mp4", video)])
    with pytest.raises(BrokenFile, match=r"0.tar/000.mp4' .*there is no table beside it; add '000.csv' to the tar"):
        load_actions(path, document_format, text="{keys}")


@pytest.mark.parametrize("trouble", [503, "cut"])
def test_a_server_that_fails(server: Server, document_format: DocumentFormat, trouble: int | str) -> None:
    tar = tar_of_videos(server.folder, 0)
    for known in (False, True):
        if known:
            assert find_recordings(f"{server.url}/0.tar", "data.train", Layout())
        server.failures["/0.tar"] = [500] * 100
        with pytest.raises(BrokenFile, match=r"0\.tar' broke while being read: 6 attempts failed"):
            load(f"{server.url}/0.tar", document_format, on_error="skip")
        server.failures.clear()
    server.failures["/0.tar"] = [trouble, trouble]
    dataset = load(f"{server.url}/0.tar", document_format)
    server.failures["/0.tar"] = [trouble]
    assert clips_of(dataset) == clips_of(load(tar, document_format))
    fresh = pickle.loads(pickle.dumps(dataset))
    server.failures["/0.tar"] = [500] * 100
    with pytest.raises(BrokenFile, match=r"0\.tar' broke while being read: 6 attempts failed, the last with .*500"):
        fresh.document(Draw(0, 0, 0))
    server.failures.clear()
    assert clips_of(fresh) == clips_of(dataset)


def test_tars_without_videos(server: Server, document_format: DocumentFormat) -> None:
    write_tar(server.folder / "0.tar", [("a.txt", b"hello")])
    with pytest.raises(MissingFile, match=r"data.train: the tars of 'http://.*/0.tar' hold no video"):
        load(f"{server.url}/0.tar", document_format)
    (server.folder / "1.tar").write_bytes(tar_of_videos(server.folder, 0).read_bytes()[:1500])
    with pytest.raises(BrokenFile, match=r"1.tar' .*it ends inside '000.mp4'"):
        load(f"{server.url}/1.tar", document_format)


def test_a_part_is_read_in_blocks(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_part, "BLOCK", 100)
    monkeypatch.setattr(file_part, "KEPT", 2)
    content = bytes(i % 251 for i in range(1000))
    (server.folder / "0.tar").write_bytes(content)
    (file,) = find_input_files(f"{server.url}/0.tar", (".tar",), "x")
    part = RemotePart(file, (33, 650), RangeReader())
    assert part.read() == content[33:683]
    for at, count in ((0, 10), (640, 50), (95, 10), (95, 10), (649, 1), (650, 1)):
        part.seek(at)
        assert part.read(count) == content[33 + at : 33 + min(650, at + count)][: 100 - at % 100]
    server.sent = 0
    part.seek(90)
    part.read(5)
    assert server.sent == 0, "of the blocks that were read last two are kept"

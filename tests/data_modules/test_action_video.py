"""Contexts, actions and targets are those of the episode, and every document is as long as planned."""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_modules.action_video import ActionVideoDataset, ActionVideoSource
from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.reading.actions import Pose, action_text
from data_modules.reading.files import Tolerance
from lit_mm.mistake import MissingFile, Mistake
from lit_mm.packing import pack_rows
from lit_mm.sequence import IGNORE, Frame, PackedRow, Text
from tests.data_modules.video_files import decode_all, moving_picture, write_video


def poses_of(count: int) -> pd.DataFrame:
    """A walk on a circle to the left: 2 units and 6 degrees a frame."""
    angle = 6.0 * np.arange(count)
    x = np.concatenate([[0], np.cumsum(2 * np.cos(np.deg2rad(angle)))[:-1]])
    y = np.concatenate([[0], np.cumsum(2 * np.sin(np.deg2rad(angle)))[:-1]])
    keys = ["W+LEFT"] * count
    return pd.DataFrame({"frame": range(count), "keys": keys, "x": x, "y": y, "angle": angle})


def write_episode(folder: Path, name: str, count: int = 20, table: str = "csv") -> Path:
    write_video(folder / f"{name}.mp4", moving_picture(count), g="8", bf="2")
    poses = poses_of(count)
    if table == "csv":
        poses.to_csv(folder / f"{name}.csv", index=False)
    elif table == "parquet":
        poses.to_parquet(folder / f"{name}.parquet")
    else:
        poses.sample(frac=1, random_state=0).to_json(folder / f"{name}.jsonl", orient="records", lines=True)
    return folder / f"{name}.mp4"


def load(path: Path, format: DocumentFormat, on_error: str = "raise", **options: Any) -> ActionVideoDataset:
    module = ActionVideoSource(str(path), **options)
    module.tolerance = Tolerance(on_error)
    dataset = module.dataset("train", "game", format)
    assert dataset is not None
    return dataset


def pictures(dataset: ActionVideoDataset, index: int) -> list[np.ndarray]:
    segments = dataset.document(Draw(index, 0, 0)).segments
    return [s.image.permute(1, 2, 0).numpy() for s in segments if isinstance(s, Frame)]


def actions_of(dataset: ActionVideoDataset, index: int, format: DocumentFormat) -> list[str]:
    """Of each branch."""
    segments = dataset.document(Draw(index, 0, 0)).segments
    branches = [[s for s in segments if s.branch == b] for b in range(1, segments[-1].branch + 1)]
    texts = [branch[0] for branch in branches]
    return [
        format.tokenizer.decode(text.ids).removeprefix("<eoi>").removesuffix("<boi>")
        for text in texts
        if isinstance(text, Text)
    ]


@pytest.mark.parametrize("frame_step", [1, 3])
def test_frames_and_actions_belong_together(frame_step: int, tmp_path: Path, document_format: DocumentFormat) -> None:
    """The frames, found in a full decode, say which poses the action has to come from."""
    full = decode_all(write_episode(tmp_path, "one", 24))
    poses = [Pose(*p) for p in poses_of(24)[["x", "y", "angle"]].to_numpy()]
    dataset = pickle.loads(
        pickle.dumps(load(tmp_path, document_format, context=3, horizon=4, frame_step=frame_step, unit=2.0))
    )
    for i in range(len(dataset)):
        at = [next(n for n, f in enumerate(full) if np.array_equal(f, p)) for p in pictures(dataset, i)]
        context, targets = at[:3], at[3:]
        assert np.diff(context).tolist() == [frame_step] * 2
        expected = []
        for target in targets:
            ahead, rest = divmod(target - context[-1], frame_step)
            assert rest == 0
            assert 1 <= ahead <= 4
            expected.append(action_text(poses[context[-1]], poses[target], ahead / 4, 2.0))
        assert actions_of(dataset, i, document_format) == expected


def test_every_context_has_its_different_targets(tmp_path: Path, document_format: DocumentFormat) -> None:
    write_episode(tmp_path, "one", 40)
    rows = load(tmp_path, document_format, horizon=8, targets=4).documents
    assert len(set(rows["anchor"])) == len(rows)
    pairs = [(a, h) for a, ahead in zip(rows["anchor"], rows["ahead"], strict=True) for h in ahead]
    assert len(set(pairs)) == len(pairs)
    per_anchor = Counter(a for a, _ in pairs)
    assert dict(per_anchor) == {a: min(4, 39 - a) for a in range(3, 39)}
    assert all(a + h < 40 for a, h in pairs)
    assert {h for _, h in pairs} == set(range(1, 9))


def test_targets_are_spread_evenly(tmp_path: Path) -> None:
    from data_modules.reading.action_documents import choose_targets

    plan = ActionVideoSource("x", targets=2).plan

    _, ahead = choose_targets(20_000, "dir/episode.mp4", plan)
    shares = np.bincount(ahead, minlength=9)[1:] / len(ahead)
    assert shares == pytest.approx(np.full(8, 1 / 8), abs=0.01)
    _, other = choose_targets(20_000, "dir/other.mp4", plan)
    assert (ahead != other).mean() > 0.5, "another episode has other targets"
    _, moved = choose_targets(20_000, "elsewhere/episode.mp4", plan)
    assert np.array_equal(ahead, moved), "where the files lie changes nothing"


@pytest.mark.parametrize("table", ["csv", "parquet", "jsonl"])
def test_every_table_format_reads_the_same(table: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    write_episode(tmp_path / "a", "one")
    write_episode(tmp_path / "b", "one", table=table)
    first, second = (load(tmp_path / f, document_format) for f in "ab")
    assert [actions_of(second, i, document_format) for i in range(0, len(second), 7)] == [
        actions_of(first, i, document_format) for i in range(0, len(first), 7)
    ]


def test_document_and_planned_lengths(tmp_path: Path, document_format: DocumentFormat) -> None:
    write_episode(tmp_path, "one")
    write_episode(tmp_path, "two", 12)
    dataset = load(tmp_path, document_format, unit=0.01)
    assert dataset.shares == pytest.approx((0.9, 0.1))
    assert dataset.lengths.shape == (2, len(dataset))
    assert len(set(dataset.lengths[0].tolist())) > 1, "actions of several lengths are tried"
    for variant in range(2):
        for i in range(len(dataset)):
            assert dataset.document(Draw(i, variant, 0)).length(4) == dataset.lengths[variant, i]


@pytest.mark.parametrize("variant", [0, 1])
def test_layout_and_what_is_predicted(variant: int, tmp_path: Path, document_format: DocumentFormat) -> None:
    write_episode(tmp_path, "one")
    dataset = load(tmp_path, document_format)
    t = document_format.tokenizer
    document = dataset.document(Draw(5, variant, 0))
    frames = [s for s in document.segments if isinstance(s, Frame)]
    targets = len(frames) - 4
    assert targets > 1
    assert [f.clean for f in frames] == [True] * 4 + [False] * targets
    row = PackedRow((document,), number=0, seed=0)
    batch = pack_rows([row], length=512, tokens_per_frame=4, image_size=32, pad_id=t.pad_id, sources=("game",))
    actions = actions_of(dataset, 5, document_format) if variant == 0 else [""] * targets
    text = t.decode(batch.tokens[0][batch.frame_ids[0] < 0])
    branches = "".join(f"<eoi>{action}<boi><eoi><eos>" for action in actions)
    assert text == f"<bos><boi><eoi><boi><eoi><boi><eoi><boi>{branches}"
    predicted = batch.targets[0][batch.targets[0] != IGNORE].tolist()
    assert predicted == [t.eos_id] * targets, "actions are read, never predicted"


def test_broken_episodes(tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture) -> None:
    video = write_episode(tmp_path, "000", 8).read_bytes()
    table = (tmp_path / "000.csv").read_bytes()
    for i in range(1, 110):
        (tmp_path / f"{i:03}.mp4").write_bytes(video)
        (tmp_path / f"{i:03}.csv").write_bytes(table if i != 60 else table[:-40])
    with pytest.raises(BrokenFile, match=r"060.csv") as caught:
        load(tmp_path, document_format)
    assert caught.value.path == str(tmp_path / "060.csv")
    with caplog.at_level(logging.WARNING):
        dataset = load(tmp_path, document_format, "skip")
    assert "1 of 110" in caplog.text
    assert dataset.skipped_at_setup == 1
    assert set(dataset.documents["row"]) == set(range(110)) - {60}


def test_bad_tables_are_named(tmp_path: Path, document_format: DocumentFormat) -> None:
    write_episode(tmp_path, "one")
    table = poses_of(20)
    path = tmp_path / "one.csv"

    def said(frame: pd.DataFrame) -> str:
        frame.to_csv(path, index=False)
        with pytest.raises(BrokenFile) as caught:
            load(tmp_path, document_format)
        assert caught.value.path == str(path)
        return caught.value.reason

    assert said(table[:19]) == "it has 19 rows but 'one.mp4' has 20 frames; one each is expected"
    assert said(table.drop(columns="angle")) == "there is no column angle; there are frame, keys, x and y"
    assert said(table.assign(x=["east"] * 20)) == "column x has no number in row 0"
    path.unlink()
    with pytest.raises(BrokenFile, match=r"one.mp4' .* there is no table beside it; write 'one.csv'"):
        load(tmp_path, document_format)


def test_bad_input_is_said_in_one_sentence(
    tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(MissingFile, match="data.train: there is no file or folder"):
        load(tmp_path / "nothing", document_format)
    write_episode(tmp_path, "short", 4)
    with pytest.raises(Mistake, match=r"data.train: 1 of 1 episodes are shorter .* 5 frames .*short.mp4.*lower"):
        load(tmp_path, document_format)
    write_episode(tmp_path, "long")
    with caplog.at_level(logging.WARNING):
        load(tmp_path, document_format)
    assert "1 of 2 episodes are shorter" in caplog.text
    for options, message in [
        ({"targets": 0}, "targets: 0 is too few"),
        ({"action_dropout": 2}, "action_dropout: 2 is not a share"),
        ({"unit": 0.0}, "unit: 0.0 is not a length"),
    ]:
        with pytest.raises(Mistake, match=message):
            ActionVideoSource("x", **options)

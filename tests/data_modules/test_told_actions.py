"""What an agent was told, in numbers and in words, against the rows of its table."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from data_modules.action_video import ActionVideoDataset, ActionVideoSource
from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.mixing.rows import RowReader, Share, TrainingRows
from data_modules.prompting.steering import Steering, action_texts
from data_modules.reading.files import Tolerance
from lit_mm.mistake import Mistake
from lit_mm.sequence import Document, Frame, Text
from tests.data_modules.video_files import decode_all, moving_picture, write_video
from tests.helpers.program import ROOT

FRAMES = 24
PHRASES = {"W": "move up", "A": "step to the left", "S": "move down", "D": "move right", "": "wait"}
TOLD = {"W": (1, 0), "A": (0, 1), "S": (-1, 0), "D": (0, -1), "": (0, 0)}
NUMBERS, DROPPED, WORDS = range(3)  # variants


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    keys = np.random.default_rng(0).choice(list(TOLD), FRAMES).tolist()
    dx, dy = zip(*(TOLD[key] for key in keys), strict=True)
    words = [PHRASES[key] for key in keys]
    return pd.DataFrame({"frame": range(FRAMES), "keys": keys, "dx": dx, "dy": dy, "dyaw": 0.0, "words": words})


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("video") / "one.mp4"
    write_video(path, moving_picture(FRAMES), g="8", bf="2")
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path: Path, table: pd.DataFrame, video: bytes) -> Path:
    """An episode; its table says nothing of poses, nor of what follows the last frame."""
    (tmp_path / "one.mp4").write_bytes(video)
    table.astype(object).where(table.frame < FRAMES - 1).assign(frame=table.frame).to_csv(
        tmp_path / "one.csv", index=False
    )
    return tmp_path


def load(folder: Path, format: DocumentFormat, on_error: str = "raise", **options: Any) -> ActionVideoDataset:
    module = ActionVideoSource(str(folder), **{"actions": "told", "context": 2, "words": 0.25} | options)
    module.tolerance = Tolerance(on_error)
    dataset = module.dataset("train", "walk", format)
    assert dataset is not None
    return dataset


def steps_of(document: Document, full: list[np.ndarray]) -> list[tuple[int, int]]:
    """The last context frame and the target of every branch, found in a full decode."""
    frames = [s for s in document.segments if isinstance(s, Frame)]
    at = {id(f): next(n for n, p in enumerate(full) if np.array_equal(p, f.image.permute(1, 2, 0))) for f in frames}
    context = [f for f in frames if f.clean]
    return [(at[id(context[-1])], at[id(f)]) for f in frames if not f.clean]


def texts_of(document: Document, format: DocumentFormat) -> list[str]:
    """What every branch says before its target."""
    t = format.tokenizer
    read = [s for s in document.segments if isinstance(s, Text) and s.branch > 0 and not s.loss]
    return [t.decode(s.ids).removeprefix("<eoi>").removesuffix("<boi>") for s in read]


@pytest.mark.parametrize("frame_step", [1, 2])
def test_what_was_told_up_to_the_target_is_summed_or_joined(
    frame_step: int, folder: Path, table: pd.DataFrame, document_format: DocumentFormat
) -> None:
    full = decode_all(folder / "one.mp4")
    dataset = load(folder, document_format, horizon=3, targets=2, frame_step=frame_step)
    seen = set()
    for index in range(len(dataset)):
        numbers, words = (dataset.document(Draw(index, variant, 0)) for variant in (NUMBERS, WORDS))
        steps = steps_of(numbers, full)
        assert steps_of(words, full) == steps
        expected_numbers, expected_words = [], []
        for start, stop in steps:
            told, rel_t = table[start:stop], (stop - start) / frame_step / 3
            expected_numbers.append(
                f"action: dx={told.dx.sum():+.3f}, dy={told.dy.sum():+.3f}, dyaw=+0.000, rel_t={rel_t:+.3f}"
            )
            expected_words.append("action: " + ", then ".join(told.words))
        assert texts_of(numbers, document_format) == expected_numbers
        assert texts_of(words, document_format) == expected_words
        seen |= set(steps)
    assert max(stop for _, stop in seen) == FRAMES - 1, "the last row says nothing, and is not needed"


def test_prompts_say_what_training_said(folder: Path, document_format: DocumentFormat) -> None:
    """Keys of the steering file and sentences are the texts that one step of the data is written as."""
    dataset = load(folder, document_format, horizon=1, targets=1)
    steering = Steering.load(str(ROOT / "configs/steering/crafter.yaml"))
    for variant, prompt in (
        (NUMBERS, "W A S D stay"),
        (WORDS, " ".join(f'"{phrase}"' for phrase in PHRASES.values())),
    ):
        trained = {texts_of(dataset.document(Draw(i, variant, 0)), document_format)[0] for i in range(len(dataset))}
        assert trained == set(action_texts(prompt, steering))


def test_planned_lengths_are_exact_in_every_variant(folder: Path, document_format: DocumentFormat) -> None:
    dataset = load(folder, document_format, horizon=3, targets=2)
    assert dataset.shares == pytest.approx((0.65, 0.1, 0.25))
    assert dataset.lengths.shape == (3, len(dataset))
    for variant in (NUMBERS, DROPPED, WORDS):
        for i in range(len(dataset)):
            assert dataset.document(Draw(i, variant, 0)).length(4) == dataset.lengths[variant, i]
    assert len(set(dataset.lengths[WORDS].tolist())) > 2
    assert texts_of(dataset.document(Draw(0, DROPPED, 0)), document_format)[0] == ""


@pytest.mark.parametrize("frame_step", [1, 2])
def test_contexts_that_share_a_document_say_what_each_says_alone(
    frame_step: int, folder: Path, document_format: DocumentFormat
) -> None:
    """Up to the end of any branch, it reads like the document of a longer context by itself."""
    options = {"horizon": 2, "targets": 2, "frame_step": frame_step}
    shared = load(folder, document_format, contexts=3, **options)
    branches = {}
    for context in (2, 3, 4):
        alone = load(folder, document_format, context=context, **options)
        for i, variant in ((i, v) for i in range(len(alone)) for v in (NUMBERS, DROPPED, WORDS)):
            trunk, *targets = by_branch(alone.document(Draw(i, variant, 0)))
            for target in targets:
                branches[context, variant, int(alone.documents["anchor"][alone.order[i]]), target] = trunk
    seen = set()
    for i, variant in ((i, v) for i in range(len(shared)) for v in (NUMBERS, DROPPED, WORDS)):
        document = shared.document(Draw(i, variant, 0))
        assert document.length(4) == shared.lengths[variant, i]
        anchor = int(shared.documents["anchor"][shared.order[i]])
        for branch in range(1, 1 + max(s.branch for s in document.segments)):
            last = max(n for n, s in enumerate(document.segments) if s.branch == branch)
            trunk, target = by_branch(
                Document(tuple(s for s in document.segments[: last + 1] if s.branch in (0, branch)), "walk")
            )
            context = sum(isinstance(part, bytes) for part in trunk)
            key = (context, variant, anchor + (context - 2) * frame_step, target)
            assert branches[key] == trunk
            seen.add(key)
    assert {context for context, *_ in seen} == {2, 3, 4}
    assert len(shared) == FRAMES - 4 * frame_step
    assert np.array_equal(shared.picture_keys(), load(folder, document_format, **options).picture_keys())


def by_branch(document: Document) -> list[tuple[Any, ...]]:
    """Ids and pictures of branch 0, and of every other one in turn."""
    parts: dict[int, list[Any]] = {}
    for s in document.segments:
        content = s.image.numpy().tobytes() if isinstance(s, Frame) else tuple(s.ids.tolist())
        parts.setdefault(s.branch, []).append(content)
    return [tuple(part) for _, part in sorted(parts.items())]


def test_without_words_there_are_two_variants(folder: Path, document_format: DocumentFormat) -> None:
    """Sentences are then never trained on, and need not be there."""
    table = pd.read_csv(folder / "one.csv").drop(columns="words")
    table.to_csv(folder / "one.csv", index=False)
    dataset = load(folder, document_format, words=0.0)
    assert dataset.shares == pytest.approx((0.9, 0.1))
    assert len(dataset.lengths) == 2


def test_shares_hold_and_a_run_goes_on_with_the_next_row(folder: Path, document_format: DocumentFormat) -> None:
    dataset = load(folder, document_format, horizon=1, targets=1)
    reader = RowReader({"walk": dataset}, document_format, row_length=256, on_error="raise")
    start = TrainingRows(reader, {"walk": 1.0}, 3, Share(0, 1, 1), {})
    planner = start.planner()
    drawn = [piece.draw.variant for _ in range(1000) for piece in planner.next_row().pieces]
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    assert shares == pytest.approx(dataset.shares, abs=4 * np.sqrt(0.25 / len(drawn)))
    unbroken = list(islice(iter(start), 6))
    for done in (1, 3):
        going_on = TrainingRows(reader, {"walk": 1.0}, 3, Share(0, 1, 1), unbroken[done - 1].plan_state)
        for batch, expected in zip(islice(iter(going_on), 3), unbroken[done:], strict=False):
            assert batch.seeds == expected.seeds
            assert torch.equal(batch.tokens, expected.tokens)
            assert torch.equal(batch.frames, expected.frames)


def test_a_missing_command_is_named_or_its_episode_is_left_out(
    folder: Path, table: pd.DataFrame, video: bytes, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "one.csv"

    def said(frame: pd.DataFrame) -> str:
        frame.to_csv(path, index=False)
        with pytest.raises(BrokenFile) as caught:
            load(folder, document_format)
        assert caught.value.path == str(path)
        return caught.value.reason

    assert said(table.drop(columns=["dy", "words"])).startswith("there is no column dy or words; there are frame")
    assert said(table.assign(dx=np.inf)) == "column dx has no number in row 0"
    assert said(table.assign(words=table.words.where(table.frame != 5))) == "column words has no text in row 5"
    for i in range(110):
        (folder / f"{i:03}.mp4").write_bytes(video)
        table.to_csv(folder / f"{i:03}.csv", index=False)
    with caplog.at_level(logging.WARNING):
        dataset = load(folder, document_format, "skip")
    assert dataset.skipped_at_setup == 1
    assert "1 of 111" in caplog.text


@pytest.mark.parametrize("words", ["null", "0100"])
def test_words_that_look_like_numbers_are_words(
    words: str, folder: Path, table: pd.DataFrame, document_format: DocumentFormat
) -> None:
    table.assign(words=words).to_csv(folder / "one.csv", index=False)
    dataset = load(folder, document_format, horizon=1, targets=1)
    assert texts_of(dataset.document(Draw(0, WORDS, 0)), document_format) == [f"action: {words}"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"contexts": 0}, "^contexts: 0 is too few; give 1 or more$"),
        ({"words": 1.5}, "^words: 1.5 is not a share; give a number from 0 to 1$"),
        ({"words": 0.95}, "^words: 0.95 and action_dropout: 0.1 are more than 1 together; lower one$"),
        ({"actions": "told", "unit": 32}, "^unit: 32 is for actions: moves; .* leave it out$"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        ActionVideoSource("x", **options)

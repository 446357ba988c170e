"""Packing, restated position by position."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from dataclasses import fields
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lit_mm.packing import pack_rows
from lit_mm.sequence import IGNORE, Document, Frame, PackedBatch, PackedRow, Segment, Text, show_row

LENGTH, TOKENS, SIZE, PAD = 96, 4, 2, 0
SOURCES = ("text", "pairs", "video")


class Position(NamedTuple):
    """One position of a row as a person would note it down."""

    document: int
    place: int
    source: int
    token: int | None  # None in a frame
    loss: bool
    frame: int


def notes(row: PackedRow) -> list[Position]:
    out: list[Position] = []
    frame = 0
    for number, document in enumerate(row.documents):
        place = 0
        for segment in document.segments:
            is_frame = isinstance(segment, Frame)
            tokens = [None] * TOKENS if is_frame else [int(i) for i in segment.ids]
            for token in tokens:
                source = SOURCES.index(document.source)
                loss = not is_frame and segment.loss
                out.append(Position(number, place, source, token, loss, frame if is_frame else -1))
                place += 1
            frame += is_frame
    return out


def target(here: Position, following: Position | None) -> int:
    """The next token, between neighbouring text of one document, where that token carries loss."""
    if following is None or following.document != here.document:
        return IGNORE
    if here.token is None or following.token is None or not following.loss:
        return IGNORE
    return following.token


def random_document(rng: random.Random, room: int) -> Document:
    segments: list[Segment] = []
    while room > 0 and rng.random() < 0.8:
        if rng.random() < 0.4 and room >= TOKENS:
            image = torch.tensor([rng.randrange(256) for _ in range(12)], dtype=torch.uint8).view(3, SIZE, SIZE)
            segments.append(Frame(image, clean=rng.random() < 0.5))
            room -= TOKENS
        else:
            ids = torch.tensor([rng.randrange(1, 1000) for _ in range(rng.randrange(min(room, 9) + 1))])
            segments.append(Text(ids.long(), loss=rng.random() < 0.7))
            room -= len(ids)
    return Document(tuple(segments), rng.choice(SOURCES))


def random_rows(seed: int) -> list[PackedRow]:
    rng = random.Random(seed)
    rows = []
    for number in range(3):
        documents: list[Document] = []
        while rng.random() < 0.9:
            room = LENGTH - sum(d.length(TOKENS) for d in documents)
            documents.append(random_document(rng, rng.randrange(room + 1)))
        rows.append(PackedRow(tuple(documents), 10 + number, rng.randrange(2**63)))
    return rows


def pack(rows: list[PackedRow], length: int = LENGTH) -> PackedBatch:
    return pack_rows(rows, length=length, tokens_per_frame=TOKENS, image_size=SIZE, pad_id=PAD, sources=SOURCES)


@pytest.mark.parametrize("seed", range(40))
def test_every_position_is_as_restated(seed: int) -> None:
    rows = random_rows(seed)
    batch = pack(rows)
    predicted, visual = [], []
    for r, row in enumerate(rows):
        noted = notes(row)
        for i in range(LENGTH):
            here = noted[i] if i < len(noted) else Position(-1, 0, -1, PAD, False, -1)
            following = noted[i + 1] if i + 1 < len(noted) else None
            expected = target(here, following) if i < len(noted) else IGNORE
            assert batch.document_ids[r, i] == here.document
            assert batch.positions[r, i] == here.place
            assert batch.source_ids[r, i] == here.source
            assert batch.frame_ids[r, i] == here.frame
            assert batch.tokens[r, i] == (PAD if here.token is None else here.token)
            assert batch.targets[r, i] == expected
            predicted += [r * LENGTH + i] if expected != IGNORE else []
            visual += [r * LENGTH + i] if here.frame >= 0 else []
    assert batch.predicted_positions.tolist() == predicted
    assert batch.visual_positions.shape == (len(visual) // TOKENS, TOKENS)
    assert batch.visual_positions.flatten().tolist() == visual


@pytest.mark.parametrize("seed", range(10))
def test_frames_come_in_reading_order_with_their_rows(seed: int) -> None:
    rows = random_rows(seed)
    batch = pack(rows)
    of_rows = [[(d.source, s) for d in row.documents for s in d.segments if isinstance(s, Frame)] for row in rows]
    frames = [frame for of_row in of_rows for frame in of_row]
    assert batch.frames_per_row == tuple(map(len, of_rows))
    assert batch.frames.shape == (len(frames), 3, SIZE, SIZE)
    assert batch.frames.dtype == torch.uint8
    for i, (source, frame) in enumerate(frames):
        assert torch.equal(batch.frames[i], frame.image)
        assert batch.frame_clean[i] == frame.clean
        assert batch.frame_source_ids[i] == SOURCES.index(source)
    assert batch.drawn_frames.tolist() == [i for i, (_, frame) in enumerate(frames) if not frame.clean]
    assert batch.row_numbers == (10, 11, 12)
    assert batch.seeds == tuple(row.seed for row in rows)


def test_rows_without_frames_or_documents_keep_their_shapes() -> None:
    batch = pack([PackedRow((), -1, 0)])
    assert batch.frames.shape == (0, 3, SIZE, SIZE)
    assert batch.visual_positions.shape == (0, TOKENS)
    assert batch.drawn_frames.dtype == batch.visual_positions.dtype == batch.predicted_positions.dtype == torch.int64
    assert (batch.tokens == PAD).all()
    assert (batch.document_ids == -1).all()


def test_a_full_row_is_packed_and_one_position_more_is_refused() -> None:
    document = Document((Frame(torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)), Text(torch.arange(1, 7))), "pairs")
    row = PackedRow((document, document), 5, 0)
    assert (pack([row], 20).document_ids >= 0).all()
    with pytest.raises(ValueError, match=r"^row 5 needs at least 20 positions but a row has 19$"):
        pack([row], 19)


@pytest.mark.parametrize("shape", [(3, SIZE, SIZE + 1), (1, SIZE, SIZE), (SIZE, SIZE, 3)])
def test_a_picture_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    document = Document((Frame(torch.zeros(shape, dtype=torch.uint8)),), "video")
    with pytest.raises(ValueError, match=r"^a frame of source 'video' has shape \(.*\); \(3, 2, 2\) is expected$"):
        pack([PackedRow((document,), 0, 0)])


def test_text_is_sliced_across_segments_and_frames_are_never_split() -> None:
    text = Document((Text(torch.arange(5)), Text(torch.arange(5, 9))), "text")
    pieces = [text.slice_text(start, stop) for start, stop in ((0, 3), (3, 7), (7, 9))]
    ids = torch.cat([segment.ids for piece in pieces for segment in piece.segments if isinstance(segment, Text)])
    assert ids.tolist() == list(range(9))
    assert {piece.source for piece in pieces} == {"text"}
    video = Document((Text(torch.arange(2)), Frame(torch.zeros(3, SIZE, SIZE, dtype=torch.uint8))), "video")
    with pytest.raises(ValueError, match=r"^a document of source 'video' was split, but it holds frames$"):
        video.slice_text(0, 1)


def test_a_shown_row_names_sources_frames_text_and_padding() -> None:
    blank = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
    first = Document((Text(torch.tensor([7, 8, 9])), Frame(blank), Text(torch.tensor([10]))), "pairs")
    second = Document((Frame(blank, clean=True), Text(torch.tensor([11, 12]), loss=False)), "video")
    rows = [PackedRow((first,), 3, 1), PackedRow((first, second), 4, 77)]
    lines = show_row(pack(rows, 20), 1, lambda ids: " ".join(f"<{i}>" for i in ids)).splitlines()
    assert lines[0] == "row 4: 20 positions, seed 77"
    expected = [
        ("0-2", "document 0 (pairs)", "'<7> <8> <9>'", "2 of 3 ids predict the next"),
        ("3-6", "document 0 (pairs)", "frame, drawn: 4 tokens of a 2x2 picture"),
        ("7-7", "document 0 (pairs)", "'<10>'", "0 of 1 ids"),
        ("8-11", "document 1 (video)", "clean frame, read: 4 tokens"),
        ("12-13", "document 1 (video)", "'<11> <12>'", "0 of 2 ids"),
        ("14-19", "padding"),
    ]
    assert len(lines) == 1 + len(expected)
    for line, parts in zip(lines[1:], expected, strict=True):
        assert all(part in line for part in parts), (line, parts)


def test_a_batch_is_sent_as_two_tensors_and_comes_out_the_same() -> None:
    """Frames, and all else as one."""
    for rows in (random_rows(0), random_rows(1), [PackedRow((), -1, 0)]):
        batch = pack(rows)
        sent = batch.__reduce_ex__(4)[2]
        assert sum(isinstance(value, Tensor) for value in sent.values()) == 2  # type: ignore[attr-defined]
        found = pickle.loads(pickle.dumps(batch))
        for field in fields(batch):
            before, after = getattr(batch, field.name), getattr(found, field.name)
            if isinstance(before, Tensor):
                assert (before.dtype, before.shape) == (after.dtype, after.shape)
                assert torch.equal(before, after)
            else:
                assert before == after


class FramesAreShared(IterableDataset):
    """Whether frames that are packed here lie in memory that other processes can see."""

    def __iter__(self) -> Iterator[bool]:
        frame = Frame(torch.zeros(3, SIZE, SIZE, dtype=torch.uint8))
        yield pack([PackedRow((Document((frame,), "video"),), 0, 0)]).frames.is_shared()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_packs_frames_where_they_need_no_copy_to_be_sent(workers: int) -> None:
    (shared,) = DataLoader(FramesAreShared(), None, num_workers=workers)
    assert shared == (workers > 0)

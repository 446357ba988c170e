from __future__ import annotations

import random

import torch

from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, Frame, PackedRow, Text
from lit_mm.vision.training.pairs import caption_pairs

PAD, BOS, EOS, BOI, EOI = range(5)
SIZE, PER_FRAME = 4, 3


def picture(number: int) -> torch.Tensor:
    return torch.full((3, SIZE, SIZE), number, dtype=torch.uint8)


def document(kind: str, number: int, caption: list[int]) -> Document:
    """As the data modules lay them out."""
    if kind == "caption_first":
        opening = Text(torch.tensor([BOS, *caption, BOI]))
        return Document((opening, Frame(picture(number)), Text(torch.tensor([EOI, EOS]))), "pairs")
    if kind == "image_first":
        opening, closing = Text(torch.tensor([BOS, BOI]), loss=False), Text(torch.tensor([EOI, *caption, EOS]))
        return Document((opening, Frame(picture(number), clean=True), closing), "pairs")
    return Document((Text(torch.tensor([BOS, *caption, EOS])),), "text")


def test_pairs_are_those_that_were_packed_whatever_lies_around_them() -> None:
    rng = random.Random(0)
    rows, expected = [], []
    number = 0
    for row in range(6):
        documents = []
        for _ in range(rng.randrange(0, 6)):
            kind = rng.choice(["caption_first", "image_first", "text"])
            # Captions may hold any id, delimiters of the same value included: a user's text that says <eos> is text.
            caption = [rng.randrange(0, 9) for _ in range(rng.randrange(0, 7))]
            number += 1
            documents.append(document(kind, number, caption))
            if kind != "text" and caption:
                expected.append((number, caption[:5]))
        rows.append(PackedRow(tuple(documents), number=row, seed=row))
    assert len(expected) > 8
    batch = pack_rows(
        rows, length=80, tokens_per_frame=PER_FRAME, image_size=SIZE, pad_id=PAD, sources=("text", "pairs")
    )
    pairs = caption_pairs(batch, longest=5)
    found = [
        (int(image[0, 0, 0]), caption[:length].tolist())
        for image, caption, length in zip(pairs.images, pairs.captions, pairs.lengths, strict=True)
    ]
    assert found == expected
    assert pairs.captions.shape == (len(expected), 5)
    assert all(not caption[length:].any() for caption, length in zip(pairs.captions, pairs.lengths, strict=True))
    assert pairs.source_ids.tolist() == [1] * len(expected)


def test_every_frame_of_a_document_gets_its_whole_text() -> None:
    segments = (Text(torch.tensor([BOS, 7, BOI])), Frame(picture(1)), Text(torch.tensor([EOI, 8, 9, BOI])))
    two = Document((*segments, Frame(picture(2)), Text(torch.tensor([EOI, EOS]))), "pairs")
    batch = pack_rows(
        [PackedRow((two,), 0, 0)], length=20, tokens_per_frame=2, image_size=SIZE, pad_id=PAD, sources=("pairs",)
    )
    pairs = caption_pairs(batch, longest=4)
    assert pairs.captions.tolist() == [[7, 8, 9, 0]] * 2
    assert pairs.images[:, 0, 0, 0].tolist() == [1, 2]


def test_a_batch_without_frames_has_no_pairs() -> None:
    batch = pack_rows(
        [PackedRow((document("text", 0, [5, 6]),), 0, 0)],
        length=10,
        tokens_per_frame=2,
        image_size=SIZE,
        pad_id=PAD,
        sources=("text",),
    )
    assert len(caption_pairs(batch, longest=4).images) == 0

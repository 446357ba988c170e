"""What there is to show of a document."""

from __future__ import annotations

from itertools import combinations

import torch

from callbacks.pages.samples import BEGINNING, FrameTask, Samples, TextTask, task_of
from lit_mm.sequence import Document, Frame, Text
from tests.helpers import decoders

DOCUMENTS = {"long": 100, "short": 7}


def test_a_text_without_pictures_is_gone_on_with() -> None:
    tokenizer = decoders.make()[0].tokenizer
    for length in DOCUMENTS.values():
        ids = torch.arange(length) + 10
        task = task_of(Document((Text(ids[:3]), Text(ids[3:])), "books"), tokenizer)
        assert isinstance(task, TextTask)
        (given,) = task.prefix
        assert isinstance(given, Text)
        assert torch.equal(torch.cat([given.ids, task.truth]), ids)
        assert len(given.ids) == min(BEGINNING, length // 2)
    assert task_of(Document((Text(torch.tensor([5])),), "books"), tokenizer) is None
    picture = Frame(torch.zeros(3, 8, 8, dtype=torch.uint8), clean=True)
    behind = task_of(
        Document((Text(torch.tensor([1, 3])), picture, Text(torch.tensor([4, 20, 2]))), "pairs"), tokenizer
    )
    assert isinstance(behind, TextTask)
    assert behind.truth.tolist() == [20, 2]


def test_both_beginnings_and_answers_are_shown() -> None:
    """Of a text, what is given, how it goes on, and what the model makes of it."""
    decoder, _ = decoders.make()
    ids = decoder.tokenizer.encode("a dog a dog a dog a dog")
    task = task_of(Document((Text(torch.tensor(ids)),), "books"), decoder.tokenizer)
    assert isinstance(task, TextTask)
    (row,) = Samples(max_tokens=2)._written(decoder, [task])
    given, _, rest = row.sentence.partition(" … true: ")
    true, _, written = rest.partition(" | written: ")
    half = len(ids) // 2
    assert given == decoder.tokenizer.decode(ids[:half]).strip()
    assert true == decoder.tokenizer.decode(ids[half : half + 2]).strip()
    (ids,) = decoder.write_text([task.prefix], [0], max_tokens=2)
    assert written == decoder.tokenizer.decode(ids).strip() != true
    assert len(row.pictures) == 0


def test_a_drawn_picture_stands_between_the_true_one_and_that_encoded_again() -> None:
    decoder, _ = decoders.make(vision=decoders.Coarse())
    prefix, truth = [*decoders.shown(1), decoders.text(decoders.T.boi_id)], decoders.picture(5)
    (row,) = Samples(seed=3)._drawn(decoder, [FrameTask(prefix, truth)])
    assert list(row.names) == ["context 0", "true", "drawn", "true, re-encoded"]
    context, true, drawn, again = row.pictures
    assert torch.equal(context, decoders.picture(0))
    assert torch.equal(true, truth)
    assert torch.equal(drawn, decoder.draw_frames([prefix], [3])[0])
    assert torch.equal(again, decoder.vision.decode(decoder.vision.encode(truth[None]))[0])
    assert not any(torch.equal(one, other) for one, other in combinations((true, drawn, again), 2))
    assert row.sentence == "look and a dog"

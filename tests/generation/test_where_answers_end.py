from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lit_mm.generation.request import Request
from lit_mm.sequence import Frame
from tests.helpers.decoders import Scripted, T, joined, make, shown


def test_eos_ends_an_answer_and_is_not_in_it() -> None:
    decoder, _ = make()
    (answer,) = decoder.generate([Request(shown(1), max_tokens=9, sampling=Scripted(ends=3))])
    assert answer.stopped == "eos"
    assert len(answer.ids) == 3
    assert T.eos_id not in answer.ids


@pytest.mark.parametrize("most", range(1, 9))
def test_most_tokens_count_delimiters(most: int) -> None:
    decoder, _ = make()
    (answer,) = decoder.generate([Request(shown(1), max_tokens=most, max_frames=2, sampling=Scripted(bois=(2, 4)))])
    assert answer.stopped == "tokens"
    assert len(answer.ids) == most
    # Texts of 2, boi, eoi, 1, boi, eoi, and more: a frame behind every boi.
    assert len(answer.latents) == sum(most >= place for place in (3, 6))
    kinds = [i for i in answer.ids if i in (T.boi_id, T.eoi_id)]
    assert kinds == [T.boi_id, T.eoi_id, T.boi_id, T.eoi_id][: len(kinds)]


def test_behind_the_most_frames_there_is_only_text() -> None:
    decoder, _ = make()
    sampling = Scripted(bois=(1, 3, 4, 5, 6))
    (answer,) = decoder.generate([Request(shown(0), max_tokens=12, max_frames=2, sampling=sampling)])
    assert len(answer.latents) == 2
    assert answer.ids.count(T.boi_id) == answer.ids.count(T.eoi_id) == 2
    assert len(answer.ids) == 12
    (one,) = decoder.generate([Request(shown(0, "x", T.boi_id), max_frames=1)])
    assert one.stopped == "frames"
    assert [type(s) for s in one.segments] == [Frame]


@pytest.mark.parametrize("frames", [0, 2])
@pytest.mark.parametrize("more", range(14))
def test_prefix_and_answer_never_hold_more_than_the_context(more: int, frames: int) -> None:
    decoder, _ = make()
    prefix = shown(1)
    length = len(joined(prefix)) + 4
    sampling = Scripted(bois=(1,))
    request = Request(prefix, max_tokens=99, max_frames=frames, sampling=sampling, context=length + more)
    (answer,) = decoder.generate([request])
    assert answer.stopped == "context"
    held = len(answer.ids) + 4 * len(answer.latents)
    if frames == 0 or more < 2:
        assert held == more
    elif more < 7:  # one token, boi, and no room for the frame and its eoi
        assert (held, answer.latents) == (2, [])
    else:
        assert held == more
        assert len(answer.latents) == 1


def test_stop_texts_end_an_answer_that_does_not_hold_them() -> None:
    decoder, _ = make()
    prefix = shown(1)
    (whole,) = decoder.generate([Request(prefix, max_tokens=12, sampling=Scripted())])
    written = T.decode(whole.ids)
    for stop in {written[5:8], written[10:12], written[0]}:
        (answer,) = decoder.generate([Request(prefix, max_tokens=12, sampling=Scripted(), stop=("never", stop))])
        assert answer.stopped == "text"
        assert T.decode(answer.ids) == written[: written.index(stop)]
    (missing,) = decoder.generate([Request(prefix, max_tokens=12, sampling=Scripted(), stop=("never",))])
    assert (missing.ids, missing.stopped) == (whole.ids, "tokens")


def test_a_stop_text_behind_a_frame_leaves_its_delimiter_whole() -> None:
    decoder, _ = make()
    prefix = shown(0, "x", T.boi_id)
    (whole,) = decoder.generate([Request(prefix, max_tokens=6, max_frames=1, sampling=Scripted())])
    written = T.decode(whole.ids[1:])
    stop = written[-2:]
    (answer,) = decoder.generate(
        [Request(prefix, max_tokens=6, max_frames=1, sampling=Scripted(), stop=(stop, "<eoi>", "<"))]
    )
    assert answer.stopped == "text"
    assert answer.ids[0] == T.eoi_id
    assert T.decode(answer.ids[1:]) == written[: written.index(stop)]


class Loves(nn.Module):
    """A text head that wants one token above all."""

    def __init__(self, token: int) -> None:
        super().__init__()
        self.token = token

    def logits(self, hidden: Tensor) -> Tensor:
        logits = torch.zeros(len(hidden), 8192)
        logits[:, self.token], logits[:, 500] = 50.0, 25.0
        return logits


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_text_alone_never_holds_delimiters_of_frames(temperature: float) -> None:
    decoder, _ = make()
    for token in (T.boi_id, T.eoi_id, T.bos_id, T.pad_id):
        decoder.model.text_head = Loves(token)  # type: ignore[assignment]
        (ids,) = decoder.write_text([shown(1)], [0], max_tokens=4, temperature=temperature)
        assert len(ids) == 4
        assert token not in ids


def test_a_prefix_that_ends_with_boi_begins_with_a_frame() -> None:
    decoder, _ = make()
    (answer,) = decoder.generate([Request(shown(0, "x", T.boi_id), max_tokens=3, max_frames=1, sampling=Scripted())])
    assert isinstance(answer.segments[0], Frame)
    assert answer.ids[0] == T.eoi_id
    (none,) = decoder.generate([Request(shown(0, "x", T.boi_id), max_tokens=3)])
    assert (none.segments, none.stopped) == ([], "frames")


def test_nothing_asked_is_nothing_answered() -> None:
    assert make()[0].generate([]) == []

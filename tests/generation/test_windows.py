"""Windows of frames keep what is the same, and draw what rows that are read anew would draw."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from torch import Tensor

from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.roll_out import action_behind, as_latents, shown
from lit_mm.generation.windows import Windows
from lit_mm.sequence import Document, Segment
from tests.helpers.decoders import make, picture

GUIDED, PLAIN = FlowSampler("euler", 2, 3.0), FlowSampler("euler", 2, 1.0)


def frames(decoder: Decoder, count: int) -> list[Tensor]:
    (latents,) = as_latents(decoder, [torch.stack([picture(i) for i in range(count)])])
    return list(latents)


def prefix(decoder: Decoder, seen: list[Tensor], action: str) -> list[Segment]:
    t = decoder.tokenizer
    return [*shown(t, seen, [t.bos_id]), action_behind(t, action)]


def drawn(windows: Windows, number: int, sampler: FlowSampler) -> Tensor:
    return deque(windows.draw([number], [7], sampler), maxlen=1)[0]


@pytest.mark.parametrize("sampler", [PLAIN, GUIDED], ids=["plain", "guided"])
def test_what_is_kept_draws_as_what_is_read_anew(sampler: FlowSampler) -> None:
    decoder, _ = make(sampler=sampler)
    seen, guided = frames(decoder, 3), sampler is GUIDED
    kept = Windows(decoder, 2, guided)
    for window, action in (
        (seen[:2], "left"),
        (seen[:2], "go right for a while"),
        (seen[1:], "left"),
        (seen[:2], "left"),
    ):
        kept.read([1], [shown(decoder.tokenizer, window, [decoder.tokenizer.bos_id])])
        kept.read([1, 0], [prefix(decoder, window, action), prefix(decoder, seen, "stay")])
        anew = Windows(decoder, 1, guided)
        anew.read([0], [prefix(decoder, window, action)])
        torch.testing.assert_close(drawn(kept, 1, sampler), drawn(anew, 0, sampler), rtol=1e-4, atol=1e-4)


def test_only_what_is_new_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, _ = make()
    t, seen = decoder.tokenizer, frames(decoder, 3)
    windows = Windows(decoder, 1, guided=False)
    read: list[int] = []
    append = windows.cached.append

    def counted(rows: list[int], new: list[list[Segment]]) -> Tensor:
        read.append(sum(Document(tuple(segments), "prompt").length(decoder.vision.num_tokens) for segments in new))
        return append(rows, new)

    monkeypatch.setattr(windows.cached, "append", counted)
    window = shown(t, seen[:2], [t.bos_id])
    told = len(action_behind(t, "left"))
    whole = Document(tuple(window), "prompt").length(decoder.vision.num_tokens)
    windows.read([0], [window])
    windows.read([0], [prefix(decoder, seen[:2], "left")])
    windows.read([0], [prefix(decoder, seen[:2], "left")])
    windows.read([0], [prefix(decoder, seen[1:], "left")])
    opening = 2  # <bos> <boi>
    assert read == [whole, told, whole + told - opening]


def test_estimates_end_with_the_sample_and_are_the_data_where_the_field_is_straight() -> None:
    data, noise = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    for sampler in (FlowSampler("euler", 5, 1.0), FlowSampler("heun", 5, 1.0)):
        estimates = list(sampler.estimates(lambda z, t: data - noise, noise))
        assert len(estimates) == 5
        for estimate in estimates:
            torch.testing.assert_close(estimate, data)
        assert torch.equal(estimates[-1], sampler.sample(lambda z, t: data - noise, noise))

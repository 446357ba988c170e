"""The cache lets a new token attend to what the mask of the whole row lets it attend to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_mm.backbone.cache import KeyValueCache
from lit_mm.backbone.layout import SequenceLayout
from lit_mm.backbone.masks import build_mask

FRAME = 4


def whole_row(generator: torch.Generator) -> tuple[SequenceLayout, list[int]]:
    """A document of texts and frames, some of them side by side, and where each segment ends."""
    frame_ids: list[int] = []
    ends = []
    for _ in range(9):
        if float(torch.rand((), generator=generator)) < 0.5:
            frame_ids += [max([-1, *frame_ids]) + 1] * FRAME
        else:
            frame_ids += [-1] * int(torch.randint(1, 6, (), generator=generator))
        ends.append(len(frame_ids))
    ids = torch.tensor(frame_ids)[None]
    return SequenceLayout(torch.zeros_like(ids), ids, torch.arange(ids.shape[1])[None]), ends


def part(layout: SequenceLayout, start: int, stop: int, length: int) -> SequenceLayout:
    """Some positions of a row of one document, padded."""

    def padded(ids: Tensor) -> Tensor:
        return torch.nn.functional.pad(ids[:, start:stop], (0, length - (stop - start)), value=-1)

    return SequenceLayout(*map(padded, (layout.document_ids, layout.frame_ids, layout.positions)))


@pytest.mark.parametrize("seed", range(8))
def test_new_tokens_attend_as_in_the_whole_row(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = [whole_row(generator) for _ in range(2)]
    masks = [build_mask(layout, "sdpa").allowed[0, 0] for layout, _ in rows]  # type: ignore[attr-defined]
    cache = KeyValueCache(2, 1, 1, 2, torch.device("cpu"), torch.float32)
    starts, segments = [0, 0], [0, 0]
    while min(segments) < 9:
        segments = [min(9, s + int(torch.randint(1, 4, (), generator=generator))) for s in segments]
        stops = [ends[s - 1] for (_, ends), s in zip(rows, segments, strict=True)]
        new = max(stop - start for start, stop in zip(starts, stops, strict=True))
        parts = [part(rows[r][0], starts[r], stops[r], new) for r in range(2)]
        ids = [
            torch.cat(both) for both in zip(*((p.document_ids, p.frame_ids, p.positions) for p in parts), strict=True)
        ]
        (context,) = cache.contexts(SequenceLayout(*ids), [0, 1], max(stops))
        for r, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            found = context.allowed[r, 0]
            assert torch.equal(found[: stop - start, :stop], masks[r][start:stop, :stop])
            assert not found[: stop - start, stop:].any()
            # Padding attends to what padding writes alone.
            assert found[stop - start :].nonzero()[:, 1].tolist() == [max(stops)] * (new - (stop - start))
            assert (context.positions[r, stop - start :] == max(stops)).all()
        starts = stops


def test_what_is_written_at_a_position_replaces_what_was_there() -> None:
    cache = KeyValueCache(3, 1, 1, 2, torch.device("cpu"), torch.float32)
    ids = torch.zeros(1, 2, dtype=torch.int64)
    layout = SequenceLayout(ids, ids - 1, torch.arange(2)[None])
    for rows in ([1], [2]):
        for value in (5.0, 7.0):
            (context,) = cache.contexts(layout, rows, 2)
            tokens = torch.full((1, 1, 2, 2), value)
            assert torch.equal(context.attend(tokens, tokens, tokens), tokens)
    assert torch.equal(cache.memory[0, 0, :, :2, 0, 0], torch.tensor([[0.0, 0], [7, 7], [7, 7]]))

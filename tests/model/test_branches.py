"""Branches of a document: several ways to go on from one context, each as if it stood alone."""

from __future__ import annotations

import pytest
import torch

from lit_mm.backbone import ModalityFeedForward, SequenceLayout, Transformer
from lit_mm.backbone.masks import build_mask
from lit_mm.packing import pack_rows
from lit_mm.sequence import IGNORE, Document, Frame, PackedBatch, PackedRow, Segment, Text

TOKENS, SIZE = 4, 2


def text(*ids: int, branch: int = 0, loss: bool = True) -> Text:
    return Text(torch.tensor(ids), loss, branch)


def frame(value: int, branch: int = 0, clean: bool = False) -> Frame:
    return Frame(torch.full((3, SIZE, SIZE), value, dtype=torch.uint8), clean, branch=branch)


TRUNK: list[Segment] = [text(1, 2), frame(1, clean=True), text(3), frame(2, clean=True)]
BRANCHES: list[list[Segment]] = [
    [text(4, 5, branch=1, loss=False), frame(3, branch=1), text(6, 7, branch=1)],
    [text(4, branch=2, loss=False), frame(4, branch=2), text(6, 8, branch=2)],
    [text(9, 10, 11, branch=3)],
]
GOING_ON: list[Segment] = [text(12, loss=False), frame(5, clean=True)]
BRANCHED = Document((*TRUNK, *BRANCHES[0], *BRANCHES[1], *BRANCHES[2]), "game")


def packed(*rows: list[Document]) -> PackedBatch:
    made = [PackedRow(tuple(row), n, n) for n, row in enumerate(rows)]
    return pack_rows(made, length=48, tokens_per_frame=TOKENS, image_size=SIZE, pad_id=0, sources=("game",))


def layout_of(batch: PackedBatch) -> SequenceLayout:
    return SequenceLayout(batch.document_ids, batch.frame_ids, batch.positions, batch.branch_ids)


def test_every_branch_is_placed_right_behind_the_context() -> None:
    before = Document((text(1, 2, 3),), "game")
    batch = packed([before, BRANCHED])
    trunk = 2 + TOKENS + 1 + TOKENS
    expected = [*range(3), *range(trunk)]
    for length in (2 + TOKENS + 2, 1 + TOKENS + 2, 3):
        expected += range(trunk, trunk + length)
    assert batch.positions[0, : len(expected)].tolist() == expected
    ids = [0] * (3 + trunk) + [1] * 8 + [2] * 7 + [3] * 3
    assert batch.branch_ids[0, : len(ids)].tolist() == ids
    assert BRANCHED.length(TOKENS) == len(ids) - 3


def test_no_token_is_predicted_from_another_branch() -> None:
    batch = packed([BRANCHED])
    positions = batch.predicted_positions.tolist()
    pairs = [(int(batch.tokens[0, p]), int(batch.targets[0, p])) for p in positions]
    assert pairs == [(1, 2), (6, 7), (6, 8), (9, 10), (10, 11)]
    assert (batch.targets[0] != IGNORE).sum() == 5


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_the_mask_shows_the_context_and_the_own_branch(backend: str) -> None:
    layout = layout_of(packed([Document((text(1, 2, 3),), "game"), BRANCHED]))
    query = torch.zeros(1, 1, 48, 48)
    seen = build_mask(layout, backend).attend(query, query, torch.eye(48)[None, None])[0, 0] > 0  # type: ignore[arg-type]
    documents, frames = layout.document_ids[0].tolist(), layout.frame_ids[0].tolist()
    assert layout.branch_ids is not None
    branches = layout.branch_ids[0].tolist()
    for q in range(48):
        for k in range(48):
            inside = documents[q] == documents[k] != -1
            order = k <= q or frames[q] == frames[k] != -1
            expected = q == k or (inside and order and branches[k] in (0, branches[q]))
            assert bool(seen[q, k]) == expected, (q, k)


def hidden(batch: PackedBatch) -> torch.Tensor:
    """What a small model makes of a batch, with a vector for every picture's value."""
    torch.manual_seed(0)
    model = Transformer(
        16, dim=64, depth=3, heads=4, kv_heads=2, feed_forward=lambda dim: ModalityFeedForward(dim, 96)
    ).eval()
    pictures = torch.randn(8, TOKENS, 64)
    with torch.no_grad():
        x = model.embed(batch.tokens).flatten(0, 1)
        for image, places in zip(batch.frames, batch.visual_positions, strict=True):
            x = x.index_copy(0, places, pictures[int(image[0, 0, 0])])
        return model(x.view(*batch.tokens.shape, -1), layout_of(batch)).hidden


def test_a_branch_comes_out_as_if_the_context_were_written_out_before_it() -> None:
    alone = [[Document((*TRUNK, *branch), "game")] for branch in BRANCHES]
    together, apart = hidden(packed([BRANCHED]))[0], hidden(packed(*alone))
    at = trunk = 2 + TOKENS + 1 + TOKENS
    for row, branch in enumerate(BRANCHES):
        length = Document(tuple(branch), "game").length(TOKENS)
        torch.testing.assert_close(together[:trunk], apart[row, :trunk], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(together[at : at + length], apart[row, trunk : trunk + length], rtol=1e-4, atol=1e-5)
        at += length


def test_a_context_that_goes_on_behind_a_branch_sees_nothing_of_it() -> None:
    first, second, _ = BRANCHES
    parts = {"trunk": TRUNK, "first": first, "on": GOING_ON, "second": second}
    alone = [[*TRUNK, *first], [*TRUNK, *GOING_ON, *second]]
    together = hidden(packed([Document(tuple(s for part in parts.values() for s in part), "game")]))[0]
    apart = hidden(packed(*([Document(tuple(segments), "game")] for segments in alone)))
    lengths = {name: Document(tuple(part), "game").length(TOKENS) for name, part in parts.items()}
    of = dict(zip(parts, together[: sum(lengths.values())].split(list(lengths.values())), strict=True))
    for row, names in enumerate((("trunk", "first"), ("trunk", "on", "second"))):
        expected = apart[row, : sum(lengths[name] for name in names)]
        torch.testing.assert_close(torch.cat([of[name] for name in names]), expected, rtol=1e-4, atol=1e-5)

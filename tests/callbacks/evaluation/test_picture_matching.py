"""Accuracies of matching against models whose likelihoods are known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from callbacks.evaluation.picture_matching import PictureMatching, groups, likelihoods, matching
from data_modules.dataset import Draw
from lit_mm.mistake import Mistake
from lit_mm.sequence import Document, Frame, PackedBatch, Text

PAIRS = 100
BOS, EOS, PAD = 201, 202, 200


class NumberedPairs:
    """Pair i shows a picture of colour i, and its caption is the token i, twice."""

    variants = ("caption_first", "image_first")

    def __len__(self) -> int:
        return PAIRS

    def document(self, draw: Draw) -> Document:
        picture = Frame(torch.full((3, 8, 8), draw.index, dtype=torch.uint8), clean=True)
        caption = Text(torch.tensor([BOS, draw.index, draw.index, EOS]))
        return Document((Text(torch.tensor([BOS]), loss=False), picture, caption), "pairs")


class KnownLikelihood:
    """log p(caption j | picture i) is `table[i, j]`, spread over the caption's tokens."""

    tokens_per_frame, image_size, device = 4, 8, torch.device("cpu")
    tokenizer = SimpleNamespace(pad_id=PAD)

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def losses(self, batch: PackedBatch, timesteps: Tensor) -> Any:
        assert batch.frame_clean.all()
        assert (timesteps == 1).all()
        rows = batch.predicted_positions // batch.tokens.shape[1]
        pictures = batch.frames[rows, 0, 0, 0].long()
        captions = batch.tokens[:, 6][rows]  # <bos>, four visual tokens, the caption's <eoi>, its first token
        return SimpleNamespace(text=-self.table[pictures, captions] / 3)


def evaluate(table: Tensor) -> dict[str, float]:
    return PictureMatching(PAIRS).evaluate(None, KnownLikelihood(table), "pairs", NumberedPairs())  # type: ignore[arg-type]


def test_known_likelihoods_give_known_accuracies() -> None:
    generator = torch.Generator().manual_seed(0)
    known = torch.rand(PAIRS, generator=generator) < 0.7
    table = torch.rand(PAIRS, PAIRS, generator=generator) / 10 - 8
    table[range(PAIRS), range(PAIRS)] += torch.where(known, 3.0, -3.0)
    share = float(known.double().mean())
    for frequent in (False, True):
        if frequent:
            table[:, ::7] += 5  # captions that are likely whatever the picture shows
        found = evaluate(table)
        assert found["picture_matching"] == pytest.approx(share)
        assert found["caption_matching_pmi"] == pytest.approx(share)
        assert found["picture_matching_stderr"] == pytest.approx(math.sqrt(share * (1 - share) / PAIRS))
        if frequent:
            assert found["caption_matching"] < 0.4
        else:
            assert found["caption_matching"] == pytest.approx(share)


def test_other_pictures_give_chance() -> None:
    table = torch.zeros(PAIRS, PAIRS)
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(20):
        shuffled = table.clone()
        shuffled[range(PAIRS), torch.randperm(PAIRS, generator=generator)] = 5.0
        found.append(evaluate(shuffled + torch.rand(PAIRS, PAIRS, generator=generator)))
    for name in ("picture_matching", "caption_matching", "caption_matching_pmi"):
        mean = sum(values[name] for values in found) / len(found)
        assert mean == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / (20 * PAIRS)))


def test_groups_have_ten_different_captions_and_are_always_the_same() -> None:
    documents = [NumberedPairs().document(Draw(i % 47, 1, 0)) for i in range(PAIRS)]
    found = groups(documents)
    captions = [[int(document.segments[-1].ids[1]) for document in group] for group in found]  # type: ignore[union-attr]
    assert [len(group) for group in captions] == [10] * 4
    assert len({caption for group in captions for caption in group}) == 40
    assert captions[0] == list(range(0, 40, 4))
    assert groups(documents[:9]) == []


def test_every_likelihood_is_that_of_its_pair() -> None:
    table = torch.randn(PAIRS, PAIRS)
    pairs = [NumberedPairs().document(Draw(i, 1, 0)) for i in (3, 50, 7)]
    expected = table[[3, 50, 7]][:, [3, 50, 7]]
    torch.testing.assert_close(likelihoods(KnownLikelihood(table), pairs).float(), expected)


def test_a_perfect_model_is_always_right() -> None:
    found = matching(torch.eye(10, dtype=torch.float64).expand(3, 10, 10))
    assert {name: value for name, value in found.items() if value != 1.0} == dict.fromkeys(
        ("picture_matching_stderr", "caption_matching_stderr", "caption_matching_pmi_stderr"), 0.0
    )


def test_pairs_that_fill_no_group_are_refused() -> None:
    with pytest.raises(Mistake, match="do not fill a group"):
        PictureMatching(9)

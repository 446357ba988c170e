from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lit_mm.generation.sampling import TextSampling

LOGITS = torch.tensor([2.0, 0.3, -1.0, 1.9, 0.0, -3.0, 1.2, 0.9, -0.4, 0.5])


def by_hand(
    logits: list[float], temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> list[float]:
    """Each rule in turn, from its definition, on what the last one left."""

    def normalised(weights: dict[int, float]) -> dict[int, float]:
        total = sum(weights.values())
        return {i: w / total for i, w in weights.items()}

    left = normalised({i: math.exp(x / temperature) for i, x in enumerate(logits)})
    if top_k:
        left = normalised(dict(sorted(left.items(), key=lambda item: -item[1])[:top_k]))
    nucleus: dict[int, float] = {}
    for i, p in sorted(left.items(), key=lambda item: -item[1]):
        if sum(nucleus.values()) < top_p:
            nucleus[i] = p
    left = normalised(nucleus)
    left = normalised({i: p for i, p in left.items() if p >= min_p * max(left.values())})
    return [left.get(i, 0.0) for i in range(len(logits))]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 1},
        {"top_k": 4},
        {"top_k": 99},
        {"top_p": 0.05},
        {"top_p": 0.5},
        {"top_p": 0.9},
        {"min_p": 0.2},
        {"min_p": 1.0},
        {"temperature": 0.7, "top_k": 6, "top_p": 0.8, "min_p": 0.3},
        {"temperature": 2.0, "top_k": 7, "top_p": 0.95, "min_p": 0.5},
        {"temperature": 2.0, "top_k": 3, "top_p": 0.6},
    ],
    ids=str,
)
def test_probabilities_are_those_of_the_definitions(settings: dict[str, Any]) -> None:
    sampling = TextSampling(**({"temperature": 1.0} | settings))
    expected = torch.tensor(by_hand(LOGITS.tolist(), **settings))
    torch.testing.assert_close(sampling.probabilities(LOGITS), expected, rtol=1e-5, atol=1e-6)
    assert sampling.probabilities(LOGITS.bfloat16()).dtype == torch.float32


def test_order_matters_and_is_the_stated_one() -> None:
    # Top-p before temperature would keep two tokens here, and top-p before top-k three.
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    warm = TextSampling(temperature=4.0, top_p=0.7).probabilities(logits)
    assert int((warm > 0).sum()) == 3
    few = TextSampling(temperature=1.0, top_k=2, top_p=0.6).probabilities(logits)
    assert int((few > 0).sum()) == 1


def test_no_temperature_takes_the_likeliest_token_whatever_else_is_set() -> None:
    sampling = TextSampling(0.0, top_k=3, top_p=0.5, min_p=0.5)
    assert sampling.probabilities(LOGITS).tolist() == [1.0] + [0.0] * 9
    assert sampling.choose(LOGITS, torch.Generator()) == 0
    assert sampling.choose(LOGITS, torch.Generator(), banned=[0, 3]) == 6


def test_tokens_are_chosen_as_often_as_they_are_likely() -> None:
    sampling, count = TextSampling(0.9, top_k=5, top_p=0.95), 4000
    generator = torch.Generator().manual_seed(0)
    found = torch.zeros(10)
    for _ in range(count):
        found[sampling.choose(LOGITS, generator, banned=[3])] += 1
    allowed = LOGITS.clone()
    allowed[3] = -1e9
    expected = torch.tensor(by_hand(allowed.tolist(), 0.9, 5, 0.95))
    assert (found[expected == 0] == 0).all()
    deviation = (expected * (1 - expected) / count).sqrt()
    assert ((found / count - expected).abs() <= 4 * deviation).all()


def test_equal_seeds_choose_equally() -> None:
    def draw(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return [TextSampling(1.0).choose(LOGITS, generator) for _ in range(20)]

    assert draw(1) == draw(1) != draw(2)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; it has to be 0, or 1e-6 or more"),
        ({"temperature": math.nan}, "temperature is nan; it has to be 0, or 1e-6 or more"),
        ({"temperature": 1e-40}, "temperature is 1e-40; it has to be 0, or 1e-6 or more"),
        ({"top_k": -1}, "top_k is -1; it has to be a whole number, 0 or more"),
        ({"top_k": 2.5}, "top_k is 2.5; it has to be a whole number, 0 or more"),
        ({"top_p": 0.0}, "top_p is 0.0; it has to be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p is 1.1; it has to be above 0 and at most 1"),
        ({"min_p": -0.5}, "min_p is -0.5; it has to be from 0 to 1"),
        ({"min_p": 2.0}, "min_p is 2.0; it has to be from 0 to 1"),
    ],
    ids=str,
)
def test_bad_values_are_one_sentence(settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValueError, match="has to be") as error:
        TextSampling(**settings)
    assert str(error.value) == wanted

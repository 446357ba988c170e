from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process as warp

from lit_mm.generation.sampling import TextSampling, choose_tokens, sorted_probabilities

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


SETTINGS: list[dict[str, Any]] = [
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
]
SAMPLINGS = [TextSampling(**({"temperature": 1.0} | settings)) for settings in SETTINGS]


def probabilities(logits: Tensor, samplings: list[TextSampling]) -> Tensor:
    """(R, vocabulary), by token."""
    values, order = sorted_probabilities(logits, samplings)
    assert values.dtype == torch.float32
    return torch.zeros_like(values).scatter(-1, order, values / values.sum(-1, keepdim=True))


def by_transformers(logits: Tensor, sampling: TextSampling) -> Tensor:
    scores = warp.TemperatureLogitsWarper(float(sampling.temperature))(None, logits[None])
    if sampling.top_k:
        scores = warp.TopKLogitsWarper(sampling.top_k)(None, scores)
    if sampling.top_p < 1:
        scores = warp.TopPLogitsWarper(sampling.top_p)(None, scores)
    if sampling.min_p:
        scores = warp.MinPLogitsWarper(sampling.min_p)(None, scores)
    return scores[0].softmax(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probabilities_are_those_of_the_definitions(dtype: torch.dtype) -> None:
    logits = LOGITS.to(dtype)
    expected = torch.tensor([by_hand(logits.tolist(), **settings) for settings in SETTINGS])
    found = probabilities(logits.expand(len(SETTINGS), -1), SAMPLINGS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_probabilities_of_rows_together_are_those_of_transformers() -> None:
    """Over a real vocabulary, with tokens that cannot come and some that are equally likely."""
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(len(SAMPLINGS), 8192, generator=generator)).round(decimals=2)
    logits[:, ::7] = -torch.inf
    expected = torch.stack([by_transformers(row, sampling) for row, sampling in zip(logits, SAMPLINGS, strict=True)])
    found = probabilities(logits, SAMPLINGS)
    # Where top-p cuts between equally likely tokens, either may be kept: the sorted probabilities say it all.
    torch.testing.assert_close(found.sort(-1).values, expected.sort(-1).values, rtol=1e-4, atol=1e-7)
    assert ((found - expected).abs() > 1e-4).sum() <= 2
    assert (found[:, ::7] == 0).all()


def test_order_matters_and_is_the_stated_one() -> None:
    # Top-p before temperature would keep two tokens here, and top-p before top-k three.
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(2, -1)
    found = probabilities(logits, [TextSampling(temperature=4.0, top_p=0.7), TextSampling(1.0, top_k=2, top_p=0.6)])
    assert (found > 0).sum(-1).tolist() == [3, 1]


def test_no_temperature_takes_the_likeliest_token_whatever_else_is_set_and_whoever_is_beside_it() -> None:
    cold, warm = TextSampling(0.0, top_k=3, top_p=0.5, min_p=0.5), TextSampling(5.0)
    logits = torch.stack([LOGITS, LOGITS.roll(2), LOGITS])
    for uniform in (0.0, 0.5, 0.99):
        assert choose_tokens(logits[:2], [cold, cold], [uniform, 0.3]).tolist() == [0, 2]
        assert choose_tokens(logits, [cold, cold, warm], [uniform, 0.3, 0.6]).tolist()[:2] == [0, 2]


def test_tokens_are_drawn_as_often_as_they_are_likely_and_no_others() -> None:
    count, sampling = 20_000, TextSampling(temperature=0.9, top_k=5, top_p=0.95)
    logits = LOGITS.clone()
    logits[3] = -torch.inf
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(0)).tolist()
    found = choose_tokens(logits.expand(count, -1), [sampling] * count, uniform).bincount(minlength=10)
    expected = torch.tensor(by_hand(logits.tolist(), 0.9, 5, 0.95))
    assert (found[expected == 0] == 0).all()
    deviation = (expected * (1 - expected) / count).sqrt()
    assert ((found / count - expected).abs() <= 4 * deviation).all()


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_interval_draw_tokens_that_are_left(uniform: float) -> None:
    """A number next to 1 is 1 in float32."""
    samplings = [TextSampling(1.0, top_k=3), TextSampling(1.0, min_p=0.5), TextSampling(1e-6), TextSampling(1.0)]
    chosen = choose_tokens(LOGITS.expand(4, -1), samplings, [uniform] * 4)
    assert (probabilities(LOGITS.expand(4, -1), samplings).gather(-1, chosen[:, None]) > 0).all()


def test_a_row_chooses_by_its_own_number_whoever_is_beside_it() -> None:
    logits = torch.randn(len(SAMPLINGS), 50, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(len(SAMPLINGS), generator=torch.Generator().manual_seed(1)).tolist()
    together = choose_tokens(logits, SAMPLINGS, uniform).tolist()
    alone = [int(choose_tokens(logits[i : i + 1], [s], uniform[i : i + 1])) for i, s in enumerate(SAMPLINGS)]
    assert together == alone
    assert together != choose_tokens(logits, SAMPLINGS, uniform[::-1]).tolist()


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

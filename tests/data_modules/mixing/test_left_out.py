"""A user is told of the first document that is left out, and at the end of how many; too many end the run."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from data_modules.mixing.left_out import LeftOut
from lit_mm.mistake import Mistake
from tests.helpers.processes import on_processes

CPU = torch.device("cpu")


def test_the_first_is_said_and_the_number_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    left_out = LeftOut()
    with caplog.at_level(logging.WARNING):
        for number in (3, 7):
            reports = {"drawings": [f"'{number}.png' broke"]}
            left_out.say_first(reports)
            left_out.count(reports, {"drawings": 500, "text": 10})
        left_out.say_all()
        left_out.say_all()
    assert caplog.messages == [
        "a document of 'drawings' is left out: '3.png' broke",
        "2 documents were left out of 'drawings'; the first: '3.png' broke",
    ]


def steps_until_the_end(rate: float, drawn: int, steps: int, seed: int, most: float = 0.01) -> int | None:
    """Steps of `drawn` documents each after which a run ends that loses a share `rate` of them; None if it goes on."""
    left_out = LeftOut(most)
    for step, lost in enumerate(np.random.default_rng(seed).binomial(drawn, rate, steps).tolist(), start=1):
        left_out.count({"pairs": ["broke"] * lost}, {"pairs": drawn})
        try:
            left_out.judge(CPU)
        except Mistake:
            return step
    return None


@pytest.mark.parametrize("drawn", [56, 56 * 512])
@pytest.mark.parametrize("rate", [0.001, 0.005, 0.009])
def test_a_source_that_loses_less_than_it_may_goes_on(rate: float, drawn: int) -> None:
    assert [steps_until_the_end(rate, drawn, 200, seed) for seed in range(40)] == [None] * 40


@pytest.mark.parametrize(("rate", "soon"), [(1.0, 1), (0.5, 2), (0.1, 10), (0.02, 200)])
def test_a_source_that_loses_more_ends_the_run_soon(rate: float, soon: int) -> None:
    assert all((steps_until_the_end(rate, 56, 200, seed) or 999) <= soon for seed in range(40))


def test_the_limit_is_given() -> None:
    assert steps_until_the_end(0.3, 56, 100, 0, most=0.5) is None
    assert steps_until_the_end(1.0, 56, 100, 0, most=1.0) is None
    assert steps_until_the_end(0.001, 56 * 512, 100, 0, most=0.0) == 1


def test_the_sentence() -> None:
    left_out = LeftOut()
    left_out.count({"text": ["'b' broke"] * 20}, {"text": 200})
    with pytest.raises(
        Mistake,
        match=r"^source 'text': 20 of about 200 documents broke .* more than 1 % \(data.loader.max_lost\); repair",
    ):
        left_out.judge(CPU)


def lose(rank: int) -> list[str]:
    """Two steps of 100 documents, of which the second rank loses 15 in each and the first none."""
    left_out, said = LeftOut(), []
    for _ in range(2):
        left_out.count({"pairs": ["broke"] * (15 * rank)} if rank else {}, {"pairs": 100})
        said.append("")
        try:
            left_out.judge(CPU)
        except Mistake as error:
            said[-1] = f"{error}"[:60]
    return said


def test_all_ranks_come_to_the_same_verdict(tmp_path: Path) -> None:
    first, second = on_processes(lose, 2, tmp_path)
    assert first == second
    assert first[0].startswith("source 'pairs': 15 of about 100 documents")
    assert first[1].startswith("source 'pairs': 30 of about 200 documents")

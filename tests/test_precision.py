"""The precisions that the trainer takes and weights allow."""

from __future__ import annotations

import time

import pytest
import torch

from lit_mm import precision as rule
from lit_mm.command_line.trainer_checks import usable_precision
from lit_mm.mistake import Mistake
from lit_mm.precision import compute_dtype, product_dtype, usable


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [(32, torch.float32), ("32", torch.float32), ("32-true", torch.float32), ("bf16", torch.bfloat16)],
)
def test_lightnings_short_names_are_taken(precision: str | int, dtype: torch.dtype) -> None:
    assert compute_dtype(precision) == dtype


@pytest.mark.parametrize("precision", ["64", "16-true"])
def test_weights_are_float32(precision: str) -> None:
    with pytest.raises(Mistake, match=f"trainer.precision is '{precision}', but weights.*use one of 32-true, bf16-m"):
        compute_dtype(precision)


@pytest.fixture
def no_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(rule, "product_dtype", product_dtype.__wrapped__)  # without what it remembers


@pytest.mark.usefixtures("no_products")
def test_a_processor_that_does_not_multiply_bfloat16_computes_in_float32_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for asked in ("bf16", "bf16-mixed"):
        caplog.clear()
        assert usable_precision({"accelerator": "cpu", "precision": asked}) == {"precision": "32-true"}
        assert f"32-true, not {asked}" in caplog.text
    assert usable_precision({"accelerator": "cpu", "precision": "16-mixed"}) == {}
    assert usable_precision({"accelerator": "cpu"}) == {}
    assert usable("bf16-mixed", "cuda") == "bf16-mixed"


def test_products_of_the_chosen_dtype_are_not_much_slower_than_float32() -> None:
    dtype = product_dtype("cpu")

    def seconds(of: torch.dtype) -> float:
        a = torch.ones(256, 512, dtype=of)
        a @ a.mT
        times = []
        for _ in range(5):
            start = time.perf_counter()
            a @ a.mT
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds(dtype) < 5 * seconds(torch.float32)

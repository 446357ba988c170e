"""The precisions that the trainer takes and weights allow."""

from __future__ import annotations

import pytest
import torch

from lit_mm.mistake import Mistake
from lit_mm.precision import compute_dtype


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

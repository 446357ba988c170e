"""Weights that are written can be read by those who may read other files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lit_mm.tensor_files import save_tensors


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_a_file_of_tensors_has_the_mode_of_any_new_file(tmp_path: Path, umask: int, mode: int) -> None:
    path = tmp_path / "model.safetensors"
    before = os.umask(umask)
    try:
        for value in (0.0, 1.0):  # the second overwrites the first
            save_tensors({"a": torch.full((2,), value)}, path, {"format": "pt"})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode
    assert load_file(path)["a"].tolist() == [1.0, 1.0]

"""The notebook runs from its first cell to its last, as it is shown, and is stored without outputs."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_mm.lab.facts import Fact, facts
from lit_mm.lab.scene import WorldFile
from lit_mm.lab.tiles import read_picture
from tests.helpers.program import ROOT

CELLS = [cell for cell in json.loads((ROOT / "docs/tour.ipynb").read_text())["cells"] if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """As Jupyter does: everything is run, and the last expression is what is shown."""
    body = ast.parse(source).body
    shown = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(shown.value), "cell", "eval"), names) if isinstance(shown, ast.Expr) else None


def test_the_tour_runs_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown = {cell["id"]: run_cell("".join(cell["source"]), names) for cell in CELLS}
    assert "64x64 pictures" in repr(shown["load"])
    assert shown["draw-one"].size == (256, 256)
    world = WorldFile.load(ROOT / "tests/lab/crafter/world.json")
    (lake,) = read_picture(world, torch.from_numpy(np.array(names["lake"].convert("RGB"))).permute(2, 0, 1)[None])
    said = {Fact("there", "water", True), Fact("on", "sand", True), Fact("facing", "player", "left")}
    assert said <= facts(world, lake), "the judge sees water, sand below the player, and where it looks"
    assert [picture.size for picture in names["drawn"]] == [(64, 64)] * 4
    assert [type(text) for text in shown["describe-pictures"]] == [str, str]
    assert isinstance(shown["ask"], str)
    assert len(names["walk_in_words"]) > 20
    assert shown["imagine-walk"].size == (5 * 128, 128)
    assert torch.is_tensor(names["tokens"])
    assert shown["encode-decode"].size == (256, 128)
    said = capsys.readouterr().out
    assert "(64, 64)" in said
    assert 0.02 < float(said.split(" bits per byte")[0].split()[-1]) < 4
    assert len(shown["logits-of-text"]) == 5
    assert shown["inside-model"] > 1e6


def test_no_outputs_are_stored() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CELLS)

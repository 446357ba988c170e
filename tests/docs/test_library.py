"""docs/library.md as a reader runs it."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.docs.pages import blocks, files, work_in
from tests.helpers.program import ROOT

PAGE = ROOT / "docs" / "library.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(work_in(tmp_path, PAGE))
    return tmp_path


@pytest.mark.slow
def test_a_model_does_all_that_the_page_shows(folder: Path) -> None:
    names: dict[str, Any] = {}
    exec(files(PAGE)["tour.py"], names)
    assert isinstance(names["cows"], Image.Image)
    assert len(names["places"]) == 2
    assert all(isinstance(names[name], str) for name in ("caption", "ahead", "text"))
    assert len(names["walk"]) == 3
    assert names["tokens"].shape == (3, 64, 64)
    assert len(names["pictures"]) == 3
    assert names["scores"].ndim == 2


def test_parts_work_alone(folder: Path) -> None:
    (block,) = (text for _, text in blocks(PAGE) if "Rae(" in text)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["tokens"].shape == (2, 16, 256)
    assert names["again"].shape == (2, 3, 64, 64)
    tokenizer = names["tokenizer"]
    assert tokenizer.decode(names["ids"]) == "<bos>You see two cows.<boi>"

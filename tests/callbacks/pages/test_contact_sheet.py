"""Pictures on sheets are shown as they are, and words can be read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from callbacks.pages import contact_sheet as sheets


def sheet(sentence: str) -> Tensor:
    picture = torch.full((1, 3, 128, 128), 255, dtype=torch.uint8)
    return sheets.contact_sheet([sheets.SheetRow(picture, [""], sentence)])


@pytest.fixture(autouse=True)
def _forget_fonts() -> None:
    sheets._font.cache_clear()


def test_other_letters_than_latin_are_no_boxes() -> None:
    pytest.importorskip("matplotlib")
    letters = ["é", "γ", "ж"]
    assert not any(torch.equal(sheet(letter), sheet("\uffff")) for letter in letters), "what no font has is a box"


@pytest.mark.parametrize("matplotlib", [True, False])
def test_words_stand_apart(monkeypatch: pytest.MonkeyPatch, matplotlib: bool) -> None:
    if not matplotlib:
        monkeypatch.setattr(sheets, "find_spec", lambda name: None)
    dark = (sheet("HH HH") < 128).any(0).any(0).nonzero().flatten()
    gaps = dark.diff() - 1
    assert gaps.max() >= 4, "columns of white between words"


def test_every_picture_is_shown_in_its_place() -> None:
    """Of two colours in a row, and a third below; small ones are enlarged without smoothing."""
    colours = torch.tensor([[200, 0, 0], [0, 200, 0], [0, 0, 200]], dtype=torch.uint8)
    small = colours[..., None, None].expand(-1, 3, 32, 32)
    rows = [sheets.SheetRow(small[:2], ["", ""], "above"), sheets.SheetRow(small[2:], [""], "below")]
    shown = sheets.contact_sheet(rows)
    places = []
    for colour in colours:
        found = (shown == colour[:, None, None]).all(0).nonzero()
        assert len(found) == 128**2
        places.append(found.float().mean(0).tolist())
    (first, second), third = places[:2], places[2]
    assert first[0] == second[0] < third[0]
    assert first[1] == third[1] < second[1]

"""The whole recipe of the laboratory's data, on Crafter itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data_modules.recipes.crafter import crafter
from lit_mm.lab.scene import WorldFile
from lit_mm.mistake import Mistake
from lit_mm.tokenizer import Tokenizer

Hashes = Callable[[Path], dict[str, str]]
SMALL = {"maps": 2, "pictures": 12, "videos": 2, "episodes": 2, "frames": 12, "texts": 12}


@pytest.mark.long
def test_it_is_complete_and_the_same_with_any_number_of_workers(tmp_path: Path, hashes: Hashes) -> None:
    for workers in (1, 2):
        crafter(tmp_path / str(workers), **SMALL, night=0.5, workers=workers)
    one, two = (hashes(tmp_path / str(workers)) for workers in (1, 2))
    assert one == two
    assert {"world.json", "templates_day.png", "templates_night.png", "tokenizer.json", "LICENCES.txt"} <= one.keys()
    assert "Danijar Hafner" in (tmp_path / "1" / "LICENCES.txt").read_text()
    tokenizer = Tokenizer(tmp_path / "1" / "tokenizer.json")
    assert tokenizer.vocab_size == 2048
    assert len(tokenizer.encode("action: dx=+1.000, dy=+0.000, dyaw=+0.000, rel_t=+1.000")) == 4
    assert WorldFile.load(tmp_path / "1" / "world.json").name == "crafter"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"without": "generation:diamant"}, r"^without: 'generation:diamant': .*'diamond'"),
        (
            {"without": ("drawing:diamond",)},
            r"^without: 'drawing:diamond' names no stream; write a stream \(generation, ",
        ),
        ({"view": 7}, r"^view: 7 tiles on a side were asked for"),
        ({"busy": 50.0}, r"^busy: 50 things for each hundred tiles were asked for; 0 to 30 leave the player room$"),
        ({"maps": 0}, r"^maps: 0 was given; at least 1 is needed$"),
    ],
)
def test_what_cannot_be_made_is_said_and_leaves_nothing(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(Mistake, match=message):
        crafter(tmp_path / "crafter", **SMALL | options)
    assert not any(tmp_path.iterdir())

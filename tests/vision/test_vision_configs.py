from __future__ import annotations

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from lit_mm.vision import VisualTokenizer

CONFIGS = sorted((Path(__file__).parents[2] / "configs/vision").glob("*.yaml"))


@pytest.mark.parametrize("second", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("first", CONFIGS, ids=lambda path: path.stem)
def test_one_file_after_another_leaves_nothing_behind(first: Path, second: Path) -> None:
    """Arguments of a class that two files share are merged: a file must set all that another one sets."""
    parser = ArgumentParser()
    parser.add_subclass_arguments(VisualTokenizer, "vision")
    alone = parser.parse_args([f"--vision={second}"])
    after = parser.parse_args([f"--vision={first}", f"--vision={second}"])
    wanted = alone.vision.init_args
    # With a folder the other sizes are not looked at.
    names = ("folder", "encoder") if wanted.get("folder") else tuple(wanted.keys())
    assert [after.vision.init_args[name] for name in names] == [wanted[name] for name in names]

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_modules.recipes.drawings import drawings
from data_modules.recipes.gameplay import gameplay
from data_modules.recipes.speeches import speeches


@pytest.fixture(scope="session")
def gameplay_options() -> dict[str, Any]:
    return {"train_maps": ("map01",), "val_maps": ("map14",), "episodes": 2, "frames": 50}


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "text"
    speeches(out)
    return out


@pytest.fixture(scope="session")
def drawing_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "image_text"
    drawings(out, size=16)
    return out


@pytest.fixture(scope="session")
def gameplay_folder(tmp_path_factory: pytest.TempPathFactory, gameplay_options: dict[str, Any]) -> Path:
    out = tmp_path_factory.mktemp("data") / "action_video"
    gameplay(out, **gameplay_options, workers=2)
    return out


@pytest.fixture(scope="session")
def hashes() -> Callable[[Path], dict[str, str]]:
    def of(folder: Path) -> dict[str, str]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return of

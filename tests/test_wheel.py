"""The wheel is enough: its program, in an empty folder far from the repository, finds configurations and weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers.program import ROOT, environment

PARTS = ("lit_mm", "data_modules", "callbacks", "configs", "pyproject.toml", "README.md", "LICENSE")
ENTRY = "from importlib.metadata import distribution as d; d('lit-mm').entry_points['lit-mm'].load()()"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages that holds the wheel's alone."""
    source, dist, site = (tmp_path_factory.mktemp(name) for name in ("source", "dist", "site"))
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part, **({"symlinks": True} if copy is shutil.copytree else {}))
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(dist)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = dist.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site


def test_everything_that_is_not_code_is_inside(site: Path) -> None:
    inside = {str(file.relative_to(site / "lit_mm/configs")) for file in (site / "lit_mm/configs").rglob("*.*")}
    assert inside == {str(file.relative_to(ROOT / "configs")) for file in (ROOT / "configs").rglob("*.*")}
    weights = ("weights/lab", "vision/weights/rae_lab", "vision/weights/rae_tiny", "vision/weights/vae_lab")
    for folder in (*weights, "play/page"):
        there = {file.name for file in (site / "lit_mm" / folder).iterdir()}
        assert there == {file.name for file in (ROOT / "lit_mm" / folder).iterdir()}
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == set(PARTS[:3])
    assert list(site.glob("*.dist-info/licenses/LICENSE"))


@pytest.mark.long
def test_its_model_answers_from_an_empty_folder(site: Path, tmp_path: Path) -> None:
    """Its weights are found, and a configuration that only the wheel holds."""
    steering = "configs/steering/crafter.yaml"
    options = ("predict", "--ckpt_path", "lit_mm/weights/lab", "--data.prompts", "-", "--data.steering", steering)
    done = subprocess.run(
        [sys.executable, "-c", ENTRY, *options],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": str(site)},
        input='{"continue": "You face", "max_tokens": 2}\n',
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (answers,) = tmp_path.rglob("answers.jsonl")
    assert "You face" in json.dumps(json.loads(answers.read_text()))
    assert f"steering: {site}/lit_mm/{steering}" in next(tmp_path.rglob("config_*.yaml")).read_text()

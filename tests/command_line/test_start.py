"""What is imported before a command asks for it, and whose packages are found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lit_mm.cli import LitCLI
from lit_mm.command_line.commands import COMMANDS, first_screen
from lit_mm.command_line.hidden_packages import check_packages
from tests.helpers.program import ROOT, environment

HEAVY = {"torch", "lightning", "jsonargparse", "numpy", "yaml", "omegaconf", "rich"}


def modules_after(code: str) -> set[str]:
    """Names of all modules that are loaded once a new interpreter has run `code`."""
    code += "\nimport sys; print('modules:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("modules:")[2].split())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_first_screen_needs_no_library(arguments: list[str]) -> None:
    modules = modules_after(f"import sys; sys.argv[1:] = {arguments}; from lit_mm.__main__ import main; main()")
    assert "lit_mm.command_line.commands" in modules
    assert not modules & HEAVY


def test_the_first_screen_names_every_command() -> None:
    assert COMMANDS.keys() == LitCLI.subcommands().keys()
    assert all(f"\n    {name} " in first_screen() for name in COMMANDS)


def test_a_model_on_a_cpu_does_without_inductor() -> None:
    """It takes two seconds to import."""
    modules = modules_after("import lit_mm.model.multimodal")
    assert "lit_mm.backbone.masks" in modules
    assert "torch._inductor.compile_fx" not in modules


def run_in(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lit_mm", *args]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)


@pytest.mark.parametrize("file", ["callbacks/__init__.py", "data_modules.py"])
def test_a_package_that_hides_ours_is_named(file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    done = run_in(tmp_path, "fit")
    name = file.split("/")[0].removesuffix(".py")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: '{tmp_path}/{file.split('/')[0]}' hides the package '{name}' of lit-mm; rename it, or run lit-mm in "
        "another folder\n"
    )


def test_a_folder_that_ours_hides_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "callbacks").mkdir()
    check_packages()
    assert capsys.readouterr().err == "", "a folder without modules is no package"
    (tmp_path / "callbacks/mine.py").touch()
    check_packages()
    assert f"nothing in '{tmp_path}/callbacks' can be named as a class" in capsys.readouterr().err
    monkeypatch.chdir(ROOT)
    check_packages()
    assert capsys.readouterr().err == ""

"""Commands in the README and in docs/ are real: every call of the program parses, every module, target and file is there."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_mm.cli import main
from lit_mm.parallel.exported import CONFIG_KEY
from tests.docs.pages import PAGES, commands, shell_lines, work_in
from tests.helpers.program import ROOT
from tests.test_configs import parse

CONFIGURATION = ROOT / "docs" / "configuration.md"
LINES = {" ".join(command): command for page in reversed(PAGES) for command in commands(page)}
README_S = {" ".join(command) for command in commands(ROOT / "README.md")}
SHOWS = ("--help", "--print_config", "--model.help", "--data.help")  # and ends


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader of all pages works."""
    return work_in(tmp_path_factory.mktemp("reader"), *PAGES)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """All that parsing reads of one: the configuration."""
    file = tmp_path_factory.mktemp("checkpoint") / "last.ckpt"
    torch.save({CONFIG_KEY: (ROOT / "lit_mm/weights/lab/config.yaml").read_text()}, file)
    return str(file)


@pytest.fixture(autouse=True)
def own_modules(folder: Path, build_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))


def _runs() -> list[Any]:
    """Calls that run something; those of the pages, which are many, are left to the long tests."""
    lines = [line for line, words in LINES.items() if not any(option in words for option in SHOWS)]
    return [pytest.param(line, marks=[] if line in README_S else pytest.mark.long) for line in lines]


@pytest.mark.parametrize("line", _runs())
def test_calls_of_the_program_parse(line: str, folder: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [checkpoint if word.endswith(".ckpt") else word for word in LINES[line]]
    parse(monkeypatch, words, folder)


@pytest.mark.long
@pytest.mark.parametrize("line", [line for line, words in LINES.items() if any(s in words for s in SHOWS)])
def test_calls_that_show_something_do_so(
    line: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as end:
        main(LINES[line])
    assert end.value.code in (0, None)
    assert len(capsys.readouterr().out.splitlines()) > 10


def test_settings_that_people_change_are_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = CONFIGURATION.read_text().partition("## Settings that people change")[2].partition("\n## ")[0]
    settings = [shlex.split(code) for code in re.findall(r"`(--[^`]+)`", table)]
    assert len(settings) > 20
    given = [word for setting in settings for word in setting]
    config = parse(monkeypatch, ["fit", "--config=configs/tiny.yaml", *given], folder)
    assert config.trainer.max_steps == 20000
    assert config.model.init_args.optimizer.init_args.lr == 3e-4
    (checkpoints,) = (c for c in config.trainer.callbacks if c.class_path.endswith(".Checkpoints"))
    assert checkpoints.init_args.every_n_train_steps == 100


def test_modules_targets_and_files_are_there(folder: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    missing = []
    for page in PAGES:
        text = page.read_text()
        words = {word for line in shell_lines(page) for word in shlex.split(line, comments=True)}
        modules = re.findall(r"python -m\s+([\w.]+)", text)
        missing += [m for m in modules if m not in sys.stdlib_module_names and importlib.util.find_spec(m) is None]
        missing += [t for t in re.findall(r"\bmake ([a-z-]+)`", text) if t not in targets]
        missing += [t for line in shell_lines(page) for t in re.findall(r"^make ([a-z-]+)", line) if t not in targets]
        paths = words | set(re.findall(r"`((?:configs|tests|docs|lit_mm|callbacks|data_modules)/[\w/.-]+\.\w+)`", text))
        paths |= set(re.findall(r"pytest\s+([\w/.-]+/[\w/.-]+)", text))
        checked = (
            w.rstrip("/.") for w in paths if w.startswith(("configs/", "tests/", "docs/", "lit_mm/", "callbacks/"))
        )
        missing += [path for path in checked if not (folder / path).exists() and not (ROOT / path).exists()]
    assert not missing

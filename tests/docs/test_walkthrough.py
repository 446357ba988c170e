"""docs/walkthrough.md, block by block as a reader runs it, on a smaller model and for two steps."""

import io
import json
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from lit_mm.cli import main
from tests.docs.pages import shell_lines, work_in
from tests.helpers.program import ROOT

PAGE, EXTEND = ROOT / "docs" / "walkthrough.md", ROOT / "docs" / "extend.md"
SHORT = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--data.loader.workers=0",
    "--data.loader.val_documents=2",
]
SMALL = [
    f"--model.backbone.{key}" for key in ("dim=64", "depth=2", "heads=2", "kv_heads=1", "feed_forward.hidden_dim=128")
]
pytestmark = pytest.mark.long


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of a shell block, within this process."""
    words = shlex.split(line, comments=True)
    if words[0] == "echo":
        monkeypatch.setattr(sys, "stdin", io.StringIO(words[1]))
        words = words[3:]
    program, *given = words
    if program == "lit-mm":
        if given[0] == "fit":
            given += SHORT if "configs/lab.yaml" in given else [*SHORT, *SMALL]
        main(given)
        return
    assert program == "python"
    module = given[0] == "-m"
    monkeypatch.setattr(sys, "argv", given[1:] if module else given)
    if module:
        runpy.run_module(given[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(given[0], run_name="__main__")


def jobs() -> dict[str, list[str]]:
    """Shell lines of each job, by its heading."""
    lines, found = shell_lines(PAGE), {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        found[section.partition("\n")[0]] = [line for line in lines if line.partition("  #")[0].strip() in section]
    return found


def results(run_folder: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path("runs") / run_folder / "validation.jsonl").read_text().splitlines()]


def test_the_five_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = work_in(tmp_path, EXTEND, PAGE)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    pictures, tokenizer, kind, weights, library = jobs().values()

    for line in pictures:
        run(line, monkeypatch)
    assert results("photos/version_0")[-1]["step"] == 2
    assert list(Path("runs/photos").rglob("predictions/*.png")), "it drew"
    assert list(Path("runs/photos/version_0/samples").rglob("*.png"))

    for line in tokenizer:
        run(line, monkeypatch)
    (validated,) = Path("runs/means/version_0/validate").rglob("validation.jsonl")
    fitted = results("means/version_0")[-1]
    assert json.loads(validated.read_text()) == pytest.approx(fitted), "as the page says"

    capsys.readouterr()
    for line in kind:
        run(line, monkeypatch)
    shown, answer = capsys.readouterr().out.rsplit("\n", 2)[:2]
    assert "(questions) '<bos>What is " in shown, "a packed row"
    assert answer.strip(), "what the model writes"
    assert results("sums/version_0")[-1]["val/questions/text_loss"] > 0

    for line in weights:
        run(line, monkeypatch)
    ended, began = results("photos/version_0")[-1], results("tuned/version_0")[0]
    assert began["step"] == 0
    assert began["val/image_text/flow_loss"] == pytest.approx(ended["val/image_text/flow_loss"], rel=1e-4)
    shipped = results("tuned_lab/version_0")[0]
    assert shipped["val/drawing/flow_loss"] < 1 < 1.9 < results("photos/version_0")[0]["val/image_text/flow_loss"]

    capsys.readouterr()
    for line in library:
        run(line, monkeypatch)
    assert capsys.readouterr().out.strip()

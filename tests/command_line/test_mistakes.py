"""A mistake in the configuration is one sentence with the key, what was found, and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lit_mm.cli import main
from lit_mm.command_line.mistakes import one_sentence
from tests.helpers.program import ROOT


def said_of(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config=configs/tiny.yaml", *args])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--model.backbon=x"],
            "error: model.backbon is unknown; did you mean 'backbone'? LitMultimodal takes backbone,",
        ),
        (["--model.flow.shfit=3"], "error: model.flow.shfit is unknown; did you mean 'shift'? FlowMatching takes "),
        (
            ["--model.backbone.dpeth=3"],
            "error: model.backbone.dpeth is unknown; did you mean 'depth'? Transformer takes ",
        ),
        (["--data.loader.rowz=3"], "error: data.loader.rowz is unknown; did you mean 'rows'? LoaderConfig takes "),
        (
            ["--trainer.max_stepss=3"],
            "error: there is no option --trainer.max_stepss=3; `--help` lists those there are",
        ),
        (["--model.flow.shift=abc"], "error: model.flow.shift is abc; it takes a value of type float"),
        (["--model.backbone.depth=x"], "error: model.backbone.depth is x; it takes a value of type int"),
        (["--model.flow.prediction=q"], "error: model.flow.prediction is q; it takes one of 'x', 'v'"),
        (
            ["--model.flow=lit_mm.flow.No"],
            "error: model.flow names a class that is not there (module 'lit_mm.flow' has",
        ),
        (
            ["--config=configs/no.yaml"],
            f"error: --config: there is no file '{ROOT}/configs/no.yaml'; give the path of a YAML file, such as ",
        ),
        (
            ["--model.backbone=no.yaml"],
            "error: model.backbone is 'no.yaml', which is neither a file nor a class; give ",
        ),
    ],
)
def test_on_the_command_line(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert said_of(capsys, *args).startswith(said)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"model": {"init_args": {"flow": {"predction": "v"}}}},
            "error: model.flow.predction is unknown; did you mean ",
        ),
        (
            {
                "trainer": {
                    "callbacks": [{"class_path": "callbacks.pages.samples.Samples", "init_args": {"documnets": 3}}]
                }
            },
            "error: trainer.callbacks.documnets is unknown; did you mean 'documents'? Samples takes ",
        ),
    ],
)
def test_in_a_file(
    config: dict, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    if "model" in config:
        config["model"]["class_path"] = "lit_mm.module.LitMultimodal"
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(config))
    assert said_of(capsys, f"--config={file}").startswith(said)


def test_the_first_help_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for command in ("lit-mm fit --config", "lit-mm validate --ckpt_path", "lit-mm predict --ckpt_path"):
        assert command in said


def test_what_is_not_understood_is_left_as_it_is() -> None:
    assert one_sentence("something else\n  went wrong") == "something else\n  went wrong"

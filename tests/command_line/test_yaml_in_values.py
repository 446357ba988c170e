"""YAML inside a value is told as that of `--config` is: with its line, or with the name that has to be quoted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jsonargparse import Namespace

from lit_mm.cli import LitCLI, main
from tests.helpers.program import ROOT

MIXTURE = """
class_path: data_modules.mixture.MixtureDataModule
init_args:
  tokenizer: data/tiny/tokenizer.json
  weights: {{{name}: 1.0}}
  sources:
    {name}: {{class_path: data_modules.text.TextDataModule, init_args: {{train: a}}}}
"""
TEXT = "class_path: data_modules.text.TextDataModule\ninit_args:\n"

pytestmark = pytest.mark.usefixtures("build_once")


class Parsed(Exception):
    pass


def parse(*args: str) -> Namespace:
    """The configuration that a fit would run, without running it."""

    def stop(cli: LitCLI) -> None:
        raise Parsed(cli.config.fit)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(LitCLI, "instantiate_classes", stop)
        with pytest.raises(Parsed) as parsed:
            main(["fit", "--config=configs/tiny.yaml", *args])
    return parsed.value.args[0]


def refusal(*args: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        with pytest.raises(SystemExit) as ended:
            main(["fit", "--config=configs/tiny.yaml", *args])
    assert isinstance(ended.value.code, str)
    assert "\n" not in ended.value.code
    return ended.value.code


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TEXT + "\ttrain: a\n", "which is not YAML (line 3: found character"),
        (TEXT + "  train: ${oc.env:NOT_SET}\n", "which has a ${…} in init_args.train that leads nowhere: "),
        (TEXT + "  train: ${nowhere}\n", "which has a ${…} in init_args.train that leads nowhere: "),
        (TEXT + "  train: a\n  train: b\n", "which is not YAML (line 4: found duplicate key train)"),
        (TEXT + "  loader: [\n", "which is not YAML (line 4: expected the node content"),
        (TEXT + "  null: b\n", "which is without a name in init_args: a key there is null"),
        (TEXT + "  train: caf\xe9\n", "which is not YAML in UTF-8"),
    ],
    ids=["tab", "environment", "interpolation", "twice", "bracket", "null", "Latin-1"],
)
def test_a_file_that_is_given_as_a_value_says_what_is_wrong_in_it(content: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content, encoding="latin-1")
    assert f"data is '{file}', {words}" in refusal(f"--data={file}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "data.loader is 'loader.yaml', but there is no such file"),
        ("rows: [\n", "data.loader is 'loader.yaml', which is not YAML (line 2: "),
    ],
    ids=["missing", "bracket"],
)
def test_so_does_a_file_of_plain_values_that_such_a_file_names(content: str | None, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(TEXT + "  train: a\n  loader: loader.yaml\n", encoding="utf-8")
    if content is not None:
        (tmp_path / "loader.yaml").write_text(content, encoding="utf-8")
    assert words in refusal(f"--data={tmp_path / 'mine.yaml'}")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("data", "which names no class"),
        ("model", "which names no class"),
        ("trainer", "which holds no keys"),
        ("data.loader", "which holds no keys"),
        ("trainer.logger", "which names no class"),
        ("trainer.callbacks", "which names no class"),
    ],
)
def test_a_file_in_which_nothing_stands_is_not_taken_for_null(key: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for content in ("", "# later\n"):
        file.write_text(content, encoding="utf-8")
        assert f"{key} is '{file}', {words}; write" in refusal(f"--{key}={file}")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a.yaml", "trainer is 'a.yaml', but there is no such file"),
        ("configs", "trainer is 'configs', which is a folder; give a YAML file"),
        ("null", "trainer is null; it takes a YAML file that holds its keys"),
    ],
)
def test_what_the_trainer_cannot_be_is_one_sentence(value: str, words: str) -> None:
    assert words in refusal(f"--trainer={value}")


def test_a_value_in_a_file_of_the_trainer_is_told_by_its_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("max_steps: [1]\n", encoding="utf-8")
    assert refusal(f"--trainer={file}").startswith("error: trainer.max_steps is [1]; it takes a value of type int")
    file.write_text("max_steps: 1\n\tlogger: false\n", encoding="utf-8")
    assert f"trainer is '{file}', which is not YAML (line 2: " in refusal(f"--trainer={file}")


@pytest.mark.parametrize(("name", "read"), [("no", "false"), ("on", "true"), ("2023", "2023"), ("1.5", "1.5")])
def test_a_name_that_yaml_reads_as_another_value_is_to_be_quoted(name: str, read: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(MIXTURE.format(name=name), encoding="utf-8")
    said = refusal(f"--data={file}")
    assert f"data.weights has a name that YAML reads as {read}; put it in quotes" in said
    file.write_text(MIXTURE.format(name=f"'{name}'"), encoding="utf-8")
    data = parse(f"--data={file}").data.init_args
    assert (list(data.sources), list(data.weights)) == ([name], [name])


NAMES = st.text(st.characters(categories=("L", "N"), include_characters="_- "), min_size=1, max_size=8).map(str.strip)


@settings(max_examples=3, phases=[Phase.generate])
@given(names=st.lists(NAMES.filter(bool), min_size=10, max_size=30, unique=True))
def test_every_quoted_name_is_kept(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    source = {"class_path": "data_modules.text.TextDataModule", "init_args": {"train": "a"}}
    mixture = {"tokenizer": "a", "weights": dict.fromkeys(names, 1.0), "sources": dict.fromkeys(names, source)}
    content = {"class_path": "data_modules.mixture.MixtureDataModule", "init_args": mixture}
    file = tmp_path_factory.mktemp("named") / "mine.yaml"
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    data = parse(f"--data={file}").data.init_args
    assert (list(data.sources), list(data.weights)) == (names, names)

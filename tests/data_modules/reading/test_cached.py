"""What is cached is made again when the code, the settings or the rows change, and only then."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import datasets
import pytest

from data_modules.dataset import DocumentFormat
from data_modules.reading.cached import code_of, generated, identity, mapped
from lit_mm.tokenizer import Tokenizer

SOURCE = '''
"""A module of a user."""
SUFFIX = "!"

def loud(text):
    """Upper case."""
    return text.upper() + SUFFIX

def shout(batch, times):
    return {"said": [loud(text) * times for text in batch["text"]]}

def lines(items, times):
    for item in items:
        yield {"said": loud(item) * times}
'''
FEATURES = datasets.Features({"said": datasets.Value("string")})
EDITS = {
    "itself": ("loud(text) * times", "loud(text) * times + '?'"),
    "what it calls": ("text.upper()", "text.title()"),
    "a constant": ('SUFFIX = "!"', 'SUFFIX = "..."'),
}


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "of_a_user.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("of_a_user")
    del sys.modules["of_a_user"]


def edit(user: ModuleType, old: str, new: str) -> ModuleType:
    file = Path(user.__file__)
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    return importlib.reload(user)


def shouted(user: ModuleType, times: int = 1, words: tuple[str, ...] = ("one two", "three")) -> list[str]:
    rows = generated(user.lines, words, {"times": 1}, FEATURES).rename_column("said", "text")
    made = mapped(rows, user.shout, {"times": times}, FEATURES, "shouting")
    return made["said"][:]


@pytest.mark.parametrize("what", EDITS)
def test_edited_code_is_run_again(user: ModuleType, what: str) -> None:
    before = shouted(user)
    assert before == ["ONE TWO!!", "THREE!!"]
    after = shouted(edit(user, *EDITS[what]))
    assert (
        after
        == {
            "itself": ["ONE TWO!!?", "THREE!!?"],
            "what it calls": ["One Two!!", "Three!!"],
            "a constant": ["ONE TWO......", "THREE......"],
        }[what]
    )


def test_settings_and_rows_are_noticed(user: ModuleType) -> None:
    assert shouted(user, times=2) == ["ONE TWO!!ONE TWO!!", "THREE!!THREE!!"]
    assert shouted(user, times=1) == ["ONE TWO!!", "THREE!!"]
    assert shouted(user, times=1, words=("four",)) == ["FOUR!!"]


def test_comments_and_docstrings_change_nothing(user: ModuleType) -> None:
    before = code_of(user.shout)
    changed = edit(edit(user, '"""Upper case."""', '"""In capitals."""'), "def shout", "# of words\ndef shout")
    assert code_of(changed.shout) == before


def test_a_tokenizer_counts_by_its_contents(document_format: DocumentFormat, tmp_path: Path) -> None:
    file = document_format.tokenizer.file
    shutil.copy(file, tmp_path / "moved.json")
    moved = Tokenizer(tmp_path / "moved.json")
    assert identity({"tokenizer": moved}) == identity({"tokenizer": document_format.tokenizer})
    other = json.loads(file.read_text())
    vocabulary = other["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert identity({"tokenizer": Tokenizer(tmp_path / "other.json")}) != identity({"tokenizer": moved})

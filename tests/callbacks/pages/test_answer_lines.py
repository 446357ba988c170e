"""Answers on standard output."""

from __future__ import annotations

from pathlib import Path

import pytest

from callbacks.pages.answer_lines import show


def test_an_empty_text_is_said_to_be_empty(capsys: pytest.CaptureFixture[str]) -> None:
    for answer in ("", "\n", "a cat"):
        show({"group": "0", "name": "0", "answer": answer}, Path("predictions"), "text")
    assert capsys.readouterr().out == "(empty)\n(empty)\na cat\n"

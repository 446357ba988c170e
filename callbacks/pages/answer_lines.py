"""Answers on standard output, each as soon as it is there: for people as text, for programs as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

Record = dict[str, Any]
Form = Literal["text", "json"]


def show(record: Record, folder: Path, form: Form) -> None:
    """Print a record of `answers.jsonl`; errors of prompts go to standard error, with JSON also to standard output.

    Args:
        record: with the names of its pictures.
        folder: where these are.
        form: `text` is the answer's text, or `(empty)`, and the paths of its pictures or of its video, behind the
            prompt's name if it was given one; `json` is the whole record in a line, with `folder`.
    """
    if "error" in record:
        print(f"error: {record['error']}", file=sys.stderr, flush=True)
    if form == "json":
        _print(json.dumps(record | {"folder": str(folder)}, ensure_ascii=False, default=str))
    elif "error" not in record:
        named = "" if record["group"].isdecimal() else f"{record['name']}: "  # a number is no name
        _print(named + "\n".join(_lines(record["answer"], folder)))


def _lines(answer: Any, folder: Path) -> list[str]:
    if isinstance(answer, str):
        return [answer if answer.strip() else "(empty)"]
    if answer and isinstance(answer[-1], str):  # one picture, or frames and behind them their video
        return [str(folder / answer[-1])]
    return [part["text"] if "text" in part else str(folder / part["picture"]) for part in answer]


def _print(text: str) -> None:
    """Also what the terminal has no characters for."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, errors="backslashreplace").decode(encoding), flush=True)

"""A page without scripts that shows prompts, answers and settings; its links are relative."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any
from urllib.parse import quote

Record = dict[str, Any]

_HEAD = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>%s</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #bbb; padding: .5rem 0 1rem; }
img, video { width: 128px; image-rendering: pixelated; vertical-align: top; margin: 2px; }
img.sheet { width: auto; max-width: 100%; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0; }
.answer { border-left: 3px solid #2a6; padding-left: .7rem; }
.truth { border-left: 3px solid #48c; padding-left: .7rem; }
.error { border-left: 3px solid #c22; padding-left: .7rem; color: #a11; }
figure { display: inline-block; margin: 2px; width: 132px; vertical-align: top; }
figcaption, h3 + p, summary { font-size: 12px; color: #555; }
pre { font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; max-width: 26rem; }
th { font-size: 12px; color: #555; font-weight: normal; max-width: 9rem; }
</style>
"""
_HEARD = ("name", "group", "shown", "actions", "answer", "truth", "error")  # on the page above the settings


def head(title: str) -> str:
    """The beginning of a page in the style of all of ours."""
    return _HEAD.replace("%s", title)


def page(records: Sequence[Record], sheets: Mapping[str, str]) -> str:
    """All of it as HTML.

    Args:
        records: lines of `answers.jsonl`.
        sheets: files of pictures laid side by side, by group.
    """
    failed = sum("error" in record for record in records)
    parts = [head("Answers"), f"<h1>{len(records)} prompts, {failed} failed</h1>\n"]
    for group, members in groupby(records, lambda record: record["group"]):
        several = list(members)
        if group in sheets:
            parts.append(f"<section><h2>{escape(group)}</h2>\n{_picture(sheets[group], 'sheet')}</section>\n")
        parts += [_section(record) for record in several]
    return "".join(parts) + "</html>\n"


def _section(record: Record) -> str:
    lines = [f'<section id="{escape(quote(record["name"]))}"><h3>{escape(record["name"])}</h3>']
    lines += [_part(part) for part in record.get("shown", [])]
    if "error" in record:
        lines.append(f'<div class="error text">{escape(record["error"])}</div>')
    else:
        lines.append(f'<div class="answer">{_answer(record)}</div>')
        if truth := "".join(_part(part) for part in record.get("truth", [])):
            lines.append(f'<div class="truth">the truth:<br>{truth}</div>')
    settings = {key: value for key, value in record.items() if key not in _HEARD}
    written = escape(json.dumps(settings, ensure_ascii=False, indent=1))
    return "\n".join([*lines, f"<details><summary>settings</summary><pre>{written}</pre></details></section>\n"])


def _answer(record: Record) -> str:
    answer, actions = record["answer"], record["actions"]
    if isinstance(answer, str):
        return _text(answer)
    if not actions:
        return "".join(_part(part if isinstance(part, dict) else {"picture": part}) for part in answer)
    *frames, film = answer
    figures = [
        f"<figure>{_picture(frame)}<figcaption>{escape(action)}</figcaption></figure>"
        for frame, action in zip(frames, actions, strict=True)
    ]
    return f"{_film(film)}<br>{''.join(figures)}"


def _part(part: Mapping[str, str]) -> str:
    return _text(part["text"]) if "text" in part else _picture(part["picture"])


def _text(text: str) -> str:
    return f'<div class="text">{escape(text)}</div>'


def _picture(file: str, kind: str = "picture") -> str:
    return f'<img class="{kind}" src="{escape(quote(file))}" alt="{escape(file)}">'


def _film(file: str) -> str:
    if file.endswith(".mp4"):
        return f'<video src="{escape(quote(file))}" autoplay loop muted playsinline controls></video>'
    return _picture(file)

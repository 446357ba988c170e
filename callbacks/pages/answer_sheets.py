"""The pictures of one question side by side: several draws, or several ways to act from the same frames."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torchvision.io import ImageReadMode, decode_image, write_png

from callbacks.pages.contact_sheet import SheetRow, contact_sheet

Record = dict[str, Any]


def pictures(record: Record) -> list[str]:
    """Files of the pictures in a record's answer, in order."""
    parts = record.get("answer", [])
    if isinstance(parts, str):
        return []
    names = [part.get("picture", "") if isinstance(part, dict) else part for part in parts]
    return [name for name in names if name.endswith(".png")]


def write_sheets(folder: Path, records: Sequence[Record]) -> dict[str, str]:
    """One `<group>.sheet.png` for every group of several answers with pictures; files by group.

    Single pictures stand in one row; else every answer has a row, with what was shown first, and the truth one below.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        if pictures(record):
            groups.setdefault(record["group"], []).append(record)
    sheets = {}
    for group, members in groups.items():
        if len(members) > 1:
            sheets[group] = f"{group}.sheet.png"
            write_png(contact_sheet(_rows(folder, members)), str(folder / sheets[group]))
    return sheets


def _rows(folder: Path, members: Sequence[Record]) -> list[SheetRow]:
    if all(record["wanted"] == "image" for record in members):
        names = [f"seed {record['seed']}" for record in members]
        return [_row(folder, [pictures(record)[0] for record in members], names, members[0]["group"])]
    rows = []
    for record in members:
        shown = [part["picture"] for part in record["shown"] if "picture" in part]
        drawn = pictures(record)
        names = ["shown"] * len(shown) + [str(i + 1) for i in range(len(drawn))]
        rows.append(_row(folder, [*shown, *drawn], names, _sentence(record)))
        if truth := [part["picture"] for part in record.get("truth", [])]:
            rows.append(_row(folder, [*shown, *truth], names, f"{record['name']}: the truth"))
    return rows


def _sentence(record: Record) -> str:
    """Its name, and how it acted: equal actions one after another are said once."""
    runs = [(text, len(list(same))) for text, same in groupby(record["actions"])]
    acted = "; ".join(text if count == 1 else f"{text} x {count}" for text, count in runs)
    return f"{record['name']} (seed {record['seed']}): {acted}".removesuffix(": ")


def _row(folder: Path, files: Sequence[str], names: Sequence[str], sentence: str) -> SheetRow:
    read = [decode_image(str(folder / file), ImageReadMode.RGB) for file in files]
    return SheetRow(torch.stack(read), names, sentence)

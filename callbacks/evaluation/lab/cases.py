"""What judges ask about: pictures with their captions and questions, and walks, of worlds that were not trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from data_modules.reading.pictures import read_picture
from lit_mm.lab.scene import Scene
from lit_mm.mistake import MissingFile

T = TypeVar("T")


@dataclass(frozen=True)
class PictureCase:
    """A picture (3, size, size) uint8, its true scene, and what is said about it.

    Attributes:
        questions: question, answer and kind of question each.
    """

    picture: Tensor
    scene: Scene
    caption: str
    questions: tuple[tuple[str, str, str], ...]


def picture_cases(data: str, stream: str, split: str, count: int, size: int) -> list[PictureCase]:
    """Up to `count` pictures of a stream (`drawing`, `reading`, `questions`), evenly spread over its split.

    Raises:
        MissingFile: there is no such folder.
    """
    folder = split_folder(data, stream, split)
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [_case(folder, json.loads(line), size) for line in spread(lines, count)]


def _case(folder: Path, row: dict, size: int) -> PictureCase:
    scene = Scene(np.array(row["tiles"], np.uint8), bool(row["night"]))
    questions = tuple((question, answer, kind) for question, answer, kind in row.get("questions", ()))
    return PictureCase(read_picture(folder / row["file_name"], size), scene, row["caption"], questions)


def split_folder(data: str, stream: str, split: str) -> Path:
    """Where a split of a stream lies.

    Raises:
        MissingFile: there is no such folder.
    """
    folder = Path(data) / stream / split
    if not folder.is_dir():
        raise MissingFile(
            f"there is no folder '{folder}' to judge by; make it with "
            f"`python -m data_modules.recipes crafter --out {data}`, or set `data` and `split` of the judge"
        )
    return folder


def spread(things: Sequence[T], count: int) -> list[T]:
    """Up to `count` of them, evenly spread, in order."""
    return [things[i] for i in torch.linspace(0, len(things) - 1, min(count, len(things))).long().tolist()]

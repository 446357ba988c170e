"""What judges ask about: pictures with their captions and questions, and walks, of worlds that were not trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from data_modules.reading.pictures import read_picture
from lit_mm.lab.facts import Fact
from lit_mm.lab.grammar import parse
from lit_mm.lab.questions import parse_answer
from lit_mm.lab.scene import Scene, WorldFile
from lit_mm.mistake import MissingFile, Mistake

T = TypeVar("T")


class Question(NamedTuple):
    """What is asked about a picture, its true answer as text and as what it states, and of which kind it is."""

    question: str
    answer: str
    truth: Fact
    kind: str


@dataclass(frozen=True)
class PictureCase:
    """A picture (3, size, size) uint8, its true scene, and what is said and asked about it.

    Attributes:
        told: facts that the caption states; none where there are questions.
    """

    picture: Tensor
    scene: Scene
    caption: str
    told: frozenset[Fact]
    questions: tuple[Question, ...]


def picture_cases(world: WorldFile, data: str, stream: str, split: str, count: int, size: int) -> list[PictureCase]:
    """Up to `count` pictures of a stream (`drawing`, `reading`, `questions`), evenly spread over its split.

    Raises:
        MissingFile: there is no such folder.
        Mistake: a caption or a question is in other words than those of `lit_mm.lab`.
    """
    folder = split_folder(data, stream, split)
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    try:
        return [_case(world, folder, json.loads(line), size) for line in spread(lines, count)]
    except (KeyError, ValueError) as error:  # of JSON, and mistakes in words
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise Mistake(
            f"'{folder / 'metadata.jsonl'}' is not for this version's judges ({what}); {_anew(data)}"
        ) from error


def _case(world: WorldFile, folder: Path, row: dict[str, Any], size: int) -> PictureCase:
    scene = Scene(np.array(row["tiles"], np.uint8), bool(row["night"]))
    questions = tuple(
        Question(question, answer, parse_answer(world, question, answer), kind)
        for question, answer, kind in row.get("questions", ())
    )
    told = frozenset[Fact]() if questions else parse(world, row["caption"])
    return PictureCase(read_picture(folder / row["file_name"], size), scene, row["caption"], told, questions)


def _anew(data: str) -> str:
    return f"make it with `python -m data_modules.recipes crafter --out {data}`"


def split_folder(data: str, stream: str, split: str) -> Path:
    """Where a split of a stream lies.

    Raises:
        MissingFile: there is no such folder.
    """
    folder = Path(data) / stream / split
    if not folder.is_dir():
        raise MissingFile(
            f"there is no folder '{folder}' to judge by; {_anew(data)}, or set `data` and `split` of the judge"
        )
    return folder


def spread(things: Sequence[T], count: int) -> list[T]:
    """Up to `count` of them, evenly spread, in order."""
    return [things[i] for i in torch.linspace(0, len(things) - 1, min(count, len(things))).long().tolist()]

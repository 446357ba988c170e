"""A byte-level BPE tokenizer for a world's captions, texts and actions, and for speeches."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_modules.reading.actions import format_action
from data_modules.recipes.tokenizer import train_on
from lit_mm.lab.scene import WorldFile

VOCABULARY = 2048
# A field of an action is one piece, so that those often told are one entry each. The rest is how GPT-2 cuts text, with
# digits on their own.
PIECES = (
    r"(?:\w+: |, )?[a-z_]+=[+-]\d+\.\d{3}|\p{N}"
    r"|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
LONGEST = 8  # steps ahead that an action may span
ACTIONS = 24_000  # lines of action text


def world_tokenizer(folder: Path, rules: WorldFile, seed: int) -> str:
    """Train on all that a recipe has written into `folder`, and return the content of a tokenizer.json."""
    return train_on(_texts(folder, rules, seed), VOCABULARY, PIECES)


def action_lines(rules: WorldFile, count: int, seed: int) -> Iterator[str]:
    """Actions as the model reads them: what was told in one or several steps, summed."""
    random = np.random.default_rng(seed)
    told = np.array([(-down, -right) for down, right in rules.moves.values()] + [(0, 0)])
    for _ in range(count):
        horizon = int(random.integers(1, LONGEST + 1))
        steps = int(random.integers(1, horizon + 1))
        dx, dy = told[random.integers(len(told), size=steps)].sum(0).tolist()
        yield format_action(dx, dy, 0.0, steps / horizon)


def _texts(folder: Path, rules: WorldFile, seed: int) -> Iterator[str]:
    plain = folder / "plain" / "train" / "metadata.jsonl"  # has no words of its own
    for file in sorted(set(folder.glob("*/train/*.jsonl")) - {plain}):
        with open(file, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                yield row["text"] if "text" in row else row["caption"]
    for file in sorted(folder.glob("action_video/train/*.csv")):
        with open(file, encoding="utf-8", newline="") as table:
            yield from (row["words"] for row in csv.DictReader(table))
    yield from action_lines(rules, ACTIONS, seed)

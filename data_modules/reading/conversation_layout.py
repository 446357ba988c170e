"""Conversations laid out by a template, and cut between turns where they are long."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from data_modules.prompting.template import ROLES, Template
from data_modules.reading.document_rows import DocumentRows
from data_modules.reading.layout import BOTH, READ, Layout, positions
from data_modules.reading.page_parts import Role
from lit_mm.tokenizer import Tokenizer

Picture = dict[str, Any]
Turn = tuple[Role, list[list[int] | Picture]]  # tokens of texts, and pictures


def lay_out_conversations(
    batch: dict[str, list[str | None]],
    rows: list[int],
    tokenizer: Tokenizer,
    template: Template,
    learn_all: bool,
    window: int,
    tokens_per_frame: int,
) -> dict[str, list]:
    """Documents of a batch of conversations; see `documents_of`."""
    pages = [json.loads(page) if page else [] for page in batch["page"]]
    texts = [part for page in pages for _, parts in page for part in parts if isinstance(part, str)]
    ids = iter(tokenizer.encode_batch(texts))
    writer = _Writer(tokenizer, template, learn_all, tokens_per_frame)
    out = DocumentRows()
    for row, page in zip(rows, pages, strict=True):
        turns = [(role, [next(ids) if isinstance(part, str) else part for part in parts]) for role, parts in page]
        left_out = 0
        for pictures, exchanges in writer.cut(turns, window):
            if exchanges is None:
                left_out += 1
                continue
            layout, shown = writer.write(turns, pictures, exchanges)
            out.add(row, layout, shown, positions(layout.ids, tokens_per_frame))
        out.leave_out(row, left_out)
    return out.columns


class _Writer:
    def __init__(self, tokenizer: Tokenizer, template: Template, learn_all: bool, tokens_per_frame: int) -> None:
        self.tokenizer, self.learn_all, self.tokens_per_frame = tokenizer, learn_all, tokens_per_frame
        self.around = {role: template.ids(role, tokenizer) for role in ROLES}
        ends_itself = tokenizer.eos_id in self.around["assistant"][1]
        self.closing = [] if ends_itself else [tokenizer.eos_id]

    def cut(self, turns: Sequence[Turn], window: int) -> Iterator[tuple[list[Picture], list[list[Turn]] | None]]:
        """The exchanges of each document and the pictures that it shows before them; None for one that is too long."""
        earlier: list[Picture] = []  # than the exchange that is looked at
        shown: list[Picture] = []
        current: list[list[Turn]] = []
        used = self._cost(turns, shown, [])
        for exchange in _exchanges(turns):
            cost = self._cost([], [], [exchange]) - self._cost([], [], [])
            if current and used + cost > window:
                yield shown, current
                current = []
            if not current:
                shown = list(earlier)
                used = self._cost(turns, shown, [])
            earlier += [part for _, parts in exchange for part in parts if isinstance(part, dict)]
            if used + cost > window:
                yield shown, None
                continue
            current.append(exchange)
            used += cost
        if current:
            yield shown, current

    def _cost(self, turns: Sequence[Turn], shown: Sequence[Picture], exchanges: Sequence[list[Turn]]) -> int:
        return positions(self.write(turns, shown, exchanges)[0].ids, self.tokens_per_frame)

    def write(
        self, turns: Sequence[Turn], shown: Sequence[Picture], exchanges: Sequence[list[Turn]]
    ) -> tuple[Layout, list[Picture]]:
        """A document: what the system says, pictures that were shown before, and exchanges; and all its pictures."""
        layout, pictures = Layout(self.tokenizer), list(shown)
        layout.add([self.tokenizer.bos_id], False)
        for turn in _said_first(turns):
            self._turn(layout, turn, pictures)
        for _ in shown:
            layout.picture(READ, self.learn_all)
        for exchange in exchanges:
            for turn in exchange:
                self._turn(layout, turn, pictures)
        layout.add(self.closing, True)
        return layout, pictures

    def _turn(self, layout: Layout, turn: Turn, pictures: list[Picture]) -> None:
        role, parts = turn
        answer = role == "assistant"
        before, behind = self.around[role]
        layout.add(before, self.learn_all)
        for part in parts:
            if isinstance(part, dict):
                layout.picture(BOTH if answer else READ, self.learn_all or answer)
                pictures.append(part)
            else:
                layout.add(part, self.learn_all or answer)
        layout.add(behind, self.learn_all or answer)


def _said_first(turns: Sequence[Turn]) -> list[Turn]:
    """Turns of the system before any other."""
    count = next((i for i, (role, _) in enumerate(turns) if role != "system"), len(turns))
    return list(turns[:count])


def _exchanges(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Questions, each with the answers that follow it."""
    exchanges: list[list[Turn]] = []
    for turn in turns[len(_said_first(turns)) :]:
        if not exchanges or (turn[0] != "assistant" and exchanges[-1][-1][0] == "assistant"):
            exchanges.append([])
        exchanges[-1].append(turn)
    return exchanges

"""Whether what a model writes about a picture is true."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from lightning.pytorch import Trainer

from callbacks.evaluation.lab.cases import PictureCase, picture_cases
from callbacks.evaluation.lab.draws import count_facts, shown_facts
from callbacks.evaluation.lab.judge import SHOWN, LabJudge, Verdict, written
from callbacks.evaluation.lab.tally import Tally
from callbacks.pages.contact_sheet import SheetRow
from lit_mm.generation.decoding import Decoder
from lit_mm.lab.facts import Fact, facts
from lit_mm.lab.grammar import caption, parse, parse_leniently
from lit_mm.lab.scene import WorldFile

MOST_TOKENS = 128  # of a description


class Describes(LabJudge):
    """Has pictures described, the likeliest token each time, and compares what is said with what is true.

    - `precision`: share of the stated facts that are true of the picture, also by kind, `precision/count` and so on.
    - `recall`: share of the facts of the picture's own caption that were stated.
    - `recall_another`: the same of another true and dense caption of the picture, which says things of its own choice
      as well. A model that describes as the data do has no more.
    - `descriptions`: share of descriptions that state something, in the grammar throughout, and nothing false.
    - `outside_grammar`: share of sentences that say nothing the judge understands.
    """

    name, streams = "describes", ("reading",)

    def prepare(self, size: int) -> None:
        """See `LabJudge.prepare`."""
        self.asked = picture_cases(self.world, self.data, "reading", self.split, self.cases, size)

    def judge(self, trainer: Trainer, decoder: Decoder) -> Verdict | None:
        """See `LabJudge.judge`."""
        cases = self.asked
        texts = written(decoder, [(case.picture, "") for case in cases], MOST_TOKENS)
        tally = Tally()
        wrong = judge_descriptions(self.world, cases, texts, tally)
        random = np.random.default_rng(self.seed)
        for case in cases:
            another = parse(self.world, caption(self.world, case.scene, random, dense=True))
            tally.add("recall_another", len(case.told & another), len(case.told))
        return Verdict(tally, [_row(*row) for row in zip(cases[:SHOWN], texts, wrong, strict=False)])


def judge_descriptions(
    world: WorldFile, cases: Sequence[PictureCase], texts: Sequence[str], tally: Tally
) -> list[frozenset[Fact]]:
    """Count what is stated in a text about each picture and is true of it.

    Returns:
        What is stated of each case and is not true.
    """
    found = []
    for case, text in zip(cases, texts, strict=True):
        stated, sentences, unknown = parse_leniently(world, text)
        wrong = stated - facts(world, case.scene)
        count_facts(tally, "precision", stated, wrong)
        tally.add("recall", len(case.told & stated), len(case.told))
        tally.add("descriptions", bool(stated) and not wrong and not unknown)
        tally.add("outside_grammar", len(unknown), sentences)
        found.append(wrong)
    return found


def _row(case: PictureCase, text: str, wrong: frozenset[Fact]) -> SheetRow:
    verdict = f" | wrong: {shown_facts(wrong)}" if wrong else ""
    return SheetRow(case.picture[None], [""], f"true: {case.caption} | written: {text or '(nothing)'}{verdict}")

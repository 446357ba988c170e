"""Whether a model answers questions about pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.evaluation.lab.cases import PictureCase, Question, picture_cases
from callbacks.evaluation.lab.judge import SHOWN, LabJudge, Verdict, written
from callbacks.evaluation.lab.tally import Tally
from callbacks.pages.contact_sheet import SheetRow
from lit_mm.generation.decoding import Decoder
from lit_mm.lab.facts import Fact
from lit_mm.lab.questions import parse_answer
from lit_mm.lab.scene import WorldFile
from lit_mm.mistake import Mistake

MOST_TOKENS = 16  # of an answer


class Asked(NamedTuple):
    """One question about a picture (3, height, width) uint8."""

    picture: Tensor
    about: Question


class Answers(LabJudge):
    """Asks one question about each picture and takes the likeliest token each time.

    - `right`: share of the answers that are right; kinds of question are asked equally often.
    - `right/<kind>`: of one kind of question: is there, how many, on which side, what is ahead, which way.
    - `frequent`, `frequent/<kind>`: what is right of the answers of someone who never looks. Of each kind of question,
      the true answer that comes most often among the cases asked (such as "grass" to what is ahead) is given every
      time. A model that does not look at the picture has no more.
    """

    name, streams = "answers", ("questions",)

    def prepare(self, size: int) -> None:
        """See `LabJudge.prepare`."""
        self.asked = one_each(picture_cases(self.world, self.data, "questions", self.split, self.cases, size))

    def judge(self, trainer: Trainer, decoder: Decoder) -> Verdict | None:
        """See `LabJudge.judge`."""
        asked = self.asked
        texts = written(decoder, [(one.picture, one.about.question) for one in asked], MOST_TOKENS, stop=(".",))
        tally = Tally()
        judge_answers(self.world, [one.about for one in asked], texts, tally)
        return Verdict(tally, [_row(*row) for row in zip(asked[:SHOWN], texts, strict=False)])


def one_each(cases: Sequence[PictureCase]) -> list[Asked]:
    """One question about each picture, of the kind that was chosen least often so far."""
    chosen: list[Asked] = []
    counts: Counter[str] = Counter()
    for case in cases:
        if case.questions:
            chosen.append(Asked(case.picture, min(case.questions, key=lambda one: counts[one.kind])))
            counts[chosen[-1].about.kind] += 1
    return chosen


def judge_answers(world: WorldFile, asked: Sequence[Question], texts: Sequence[str], tally: Tally) -> None:
    """Count right answers, and beside them those of whoever always gives the most frequent one."""
    frequent = {
        kind: Counter(one.answer for one in asked if one.kind == kind).most_common(1)[0][0]
        for kind in {one.kind for one in asked}
    }
    for one, text in zip(asked, texts, strict=True):
        for name, given in (("right", text), ("frequent", frequent[one.kind])):
            right = _meant(world, one.question, given) == one.truth
            tally.add(name, right)
            tally.add(f"{name}/{one.kind}", right)


def _meant(world: WorldFile, question: str, answer: str) -> Fact | None:
    """What a model's answer states; None, if it is none."""
    try:
        return parse_answer(world, question, answer)
    except Mistake:
        return None


def _row(one: Asked, text: str) -> SheetRow:
    question, answer, *_ = one.about
    return SheetRow(one.picture[None], [""], f"{question} | true: {answer} | answered: {text or '(nothing)'}")

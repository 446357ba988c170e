"""Questions about a scene with their answers, and what an answer states."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from lit_mm.lab.chance import one_of
from lit_mm.lab.facts import MANY, SIDES, Fact, facts
from lit_mm.lab.phrases import NUMBERS, several, singular
from lit_mm.lab.scene import FACINGS, PLAYER, Scene, WorldFile
from lit_mm.mistake import Mistake

QuestionKind = Literal["there", "count", "side", "ahead", "facing"]
KINDS: tuple[QuestionKind, ...] = ("there", "count", "side", "ahead", "facing")
Asked = Counter[tuple[str, ...]]


class Question(NamedTuple):
    """A question with its right answer, such as "Is there water?" and "Yes.", and what it is about."""

    question: str
    answer: str
    kind: QuestionKind


def questions(
    world: WorldFile, scene: Scene, rng: np.random.Generator, count: int, asked: Asked | None = None
) -> list[Question]:
    """Different questions about a scene, sooner of kinds and with answers that came less often.

    Args:
        world: that the scene is of.
        scene: with a player in its place and no unreadable tile.
        rng: chooses questions and their words.
        count: how many; fewer, where there is less to ask.
        asked: what was asked before; this call adds to it. Give the same Counter for all pictures of a data set:
            what is answered without looking, such as whether there is grass, is then rarely asked.
    """
    asked = Counter() if asked is None else asked
    left = _askable(world, scene)
    found: list[Question] = []
    while len(found) < count and any(left.values()):
        kinds = [kind for kind in KINDS if left[kind]]
        kind = one_of(kinds, rng, [_wanted(world, kind, left[kind].values(), asked) for kind in kinds])
        answers = list(dict.fromkeys(left[kind].values()))
        answer = one_of(answers, rng, [1 / (1 + asked[kind, "", answer]) for answer in answers])
        things = [thing for thing, its_answer in left[kind].items() if its_answer == answer]
        thing = one_of(things, rng, [_unsure(asked, kind, thing, answer) for thing in things])
        del left[kind][thing]
        for key in ((kind,), (kind, thing), (kind, "", answer), (kind, thing, answer)):
            asked[key] += 1
        ways = _ways_to_ask(world, kind, thing)
        found.append(Question(one_of(ways, rng), answer, kind))
    return found


def all_questions(world: WorldFile, scene: Scene, kind: QuestionKind, rng: np.random.Generator) -> list[Question]:
    """Every question of one kind that has an answer in a scene, each once; `rng` chooses its words."""
    asked = _askable(world, scene)[kind].items()
    return [Question(one_of(_ways_to_ask(world, kind, thing), rng), answer, kind) for thing, answer in asked]


def document_of(questions: Iterable[Question]) -> str:
    """Questions and answers as one text: "Is there water? Yes. How many cows are there? Two."."""
    return " ".join(f"{one.question} {one.answer}" for one in questions)


def parse_answer(world: WorldFile, question: str, answer: str) -> Fact:
    """The fact that an answer states.

    Args:
        world: that the question is about.
        question: as `questions` asks.
        answer: a text whose first sentence is an answer; capital letters and the full stop do not matter.

    Raises:
        Mistake: either is outside the grammar.
    """
    known = _meanings(world)
    asked = " ".join(question.split()).lower()
    if asked not in known:
        near = difflib.get_close_matches(asked, known, n=1, cutoff=0.0)[0]
        raise Mistake(f"question: '{question}' is not asked of world '{world.name}'; the nearest one is '{near}'")
    kind, thing = known[asked]
    possible = answers(world, kind, thing)
    said = " ".join(re.split(r"[.!?\n]", answer.strip())[0].split()).lower()
    if said not in possible:
        raise Mistake(f"answer: '{said}' does not answer '{question}'; answers are {', '.join(possible)}")
    return possible[said]


@lru_cache(maxsize=256)
def answers(world: WorldFile, kind: QuestionKind, thing: str) -> dict[str, Fact]:
    """All answers to a question, in small letters, with what they state."""
    if kind == "there":
        return {"yes": Fact("there", thing, True), "no": Fact("there", thing, False)}
    if kind == "count":
        numbers = {NUMBERS[number]: Fact("count", thing, number) for number in range(1, MANY + 1)}
        return {"none": Fact("there", thing, False), **numbers}
    if kind == "side":
        return {side: Fact("side", thing, side) for side in SIDES}
    if kind == "ahead":
        return {singular(world, name): Fact("ahead", name, True) for name in world.kinds}
    return {way: Fact("facing", PLAYER, way) for way in FACINGS}


def _askable(world: WorldFile, scene: Scene) -> dict[QuestionKind, dict[str, str]]:
    """What can be asked about a scene: the answer by kind of question and thing asked for."""
    true = facts(world, scene)
    left: dict[QuestionKind, dict[str, str]] = {kind: {} for kind in KINDS}
    for kind, thing in _meanings(world).values():
        for answer, fact in answers(world, kind, thing).items():
            if fact in true:
                left[kind][thing] = f"{answer.capitalize()}."
    return left


@lru_cache(maxsize=4)
def _meanings(world: WorldFile) -> dict[str, tuple[QuestionKind, str]]:
    """Kind of question and thing asked for, by the words in small letters."""
    counted = [name for name, kind in world.kinds.items() if kind.plural]
    things: dict[QuestionKind, list[str]] = {
        "there": list(world.kinds), "count": counted, "side": list(world.kinds), "ahead": [""], "facing": [""]
    }  # fmt: skip
    return {
        way.lower(): (kind, thing)
        for kind in KINDS
        for thing in things[kind]
        for way in _ways_to_ask(world, kind, thing)
    }


def _ways_to_ask(world: WorldFile, kind: QuestionKind, thing: str) -> tuple[str, ...]:
    if kind == "facing":
        return "Which way do you face?", "Where do you look?", "Which way does the player face?"
    if kind == "ahead":
        return "What is ahead?", "What is in front of you?", "What do you look at?"
    if kind == "side":
        return f"Where is the nearest {thing}?", f"On which side is the nearest {thing}?"
    counted = world.kinds[thing].plural is not None
    what = several(world, thing) if counted else singular(world, thing)
    if kind == "count":
        return f"How many {what} are there?", f"How many {what} do you see?"
    return f"{'Are' if counted else 'Is'} there {what}?", f"Do you see {what}?"


def _wanted(world: WorldFile, kind: QuestionKind, its_answers: Iterable[str], asked: Asked) -> float:
    """Weight of a kind of question: less, the oftener it or all of its answers here came before."""
    thing = "" if kind in ("ahead", "facing") else next(iter(world.kinds))
    share = asked[(kind,)] / len(answers(world, kind, thing))
    return min(1.0, (1 + share) / (1 + min(asked[kind, "", answer] for answer in its_answers))) / (1 + asked[(kind,)])


def _unsure(asked: Asked, kind: QuestionKind, thing: str, answer: str) -> float:
    """Weight of a question: how often it had other answers before than this one."""
    this = asked[kind, thing, answer]
    return (1 + asked[kind, thing] - this) / (1 + this)

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lit_mm.lab.facts import Fact, facts
from lit_mm.lab.questions import Asked, Question, document_of, parse_answer, questions
from lit_mm.lab.scene import Scene, WorldFile
from lit_mm.mistake import Mistake
from tests.lab.conftest import RandomScene


@pytest.fixture(scope="module")
def scenes(random_scene: RandomScene) -> list[Scene]:
    rng = np.random.default_rng(4)
    return [random_scene(rng) for _ in range(500)]


@pytest.fixture(scope="module")
def asked(world: WorldFile, scenes: list[Scene]) -> list[list[Question]]:
    rng, before = np.random.default_rng(5), Asked()
    return [questions(world, scene, rng, 5, before) for scene in scenes]


def test_answers_are_true(world: WorldFile, scenes: list[Scene], asked: list[list[Question]]) -> None:
    for scene, some in zip(scenes, asked, strict=True):
        true = facts(world, scene)
        assert len({question for question, *_ in some}) == 5
        for question, answer, _ in some:
            assert parse_answer(world, question, answer) in true


def test_answers_cannot_be_guessed(asked: list[list[Question]]) -> None:
    """Neither from the kind of question nor from its words."""
    every = [one for some in asked for one in some]
    kinds = Counter(one.kind for one in every)
    assert max(kinds.values()) < 3 * min(kinds.values()), "what can be asked once of a picture comes about as often"
    answers = {kind: Counter(one.answer for one in every if one.kind == kind) for kind in ("there", "side", "facing")}
    for of_kind in answers.values():
        assert min(of_kind.values()) > 0.85 * of_kind.total() / len(of_kind)
    counts = Counter(one.answer for one in every if one.kind == "count")
    assert set(counts) == {"None.", "One.", "Two.", "Three.", "Four.", "Five.", "Six.", "Many."}
    assert max(counts.values()) < 0.4 * counts.total()
    about_cows = Counter(one.answer for one in every if one.question in ("Are there cows?", "Do you see cows?"))
    assert min(about_cows.values()) > 0.35 * about_cows.total()


def test_what_can_be_answered_without_looking_is_rarely_asked(world: WorldFile, scenes: list[Scene]) -> None:
    grassy = [scene for scene in scenes if Fact("there", "grass", True) in facts(world, scene)]
    rng, before = np.random.default_rng(6), Asked()
    every = [one.question for scene in grassy for one in questions(world, scene, rng, 5, before)]
    about = {
        thing: sum(q in (f"Is there {thing}?", f"Do you see {thing}?") for q in every) for thing in ("grass", "water")
    }
    assert about["grass"] < 0.5 * about["water"]


def test_a_document_is_questions_with_their_answers() -> None:
    some = [Question("Is there water?", "Yes.", "there"), Question("How many cows are there?", "Two.", "count")]
    assert document_of(some) == "Is there water? Yes. How many cows are there? Two."


@pytest.mark.parametrize(
    ("question", "answer", "stated"),
    [
        ("how many cows are there?", " none. How many", Fact("there", "cow", False)),
        ("How many cows do you see?", "Many", Fact("count", "cow", 7)),
        ("What is ahead?", "An arrow.", Fact("ahead", "arrow", True)),
        ("Where is the nearest water?", "above", Fact("side", "water", "above")),
    ],
)
def test_answers_are_understood(world: WorldFile, question: str, answer: str, stated: Fact) -> None:
    assert parse_answer(world, question, answer) == stated


def test_what_is_no_question_and_no_answer_is_refused_in_one_sentence(world: WorldFile) -> None:
    with pytest.raises(
        Mistake, match=r"'Is there a dragon\?' is not asked of world 'crafter'; the nearest one is 'is there"
    ):
        parse_answer(world, "Is there a dragon?", "Yes.")
    with pytest.raises(Mistake, match="answer: 'two' does not answer 'Is there water.'; answers are yes, no"):
        parse_answer(world, "Is there water?", "Two.")

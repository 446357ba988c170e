from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest

from lit_mm.lab.facts import Fact, facts
from lit_mm.lab.grammar import caption, parse, parse_leniently
from lit_mm.lab.phrases import all_facts, pairs, phrases
from lit_mm.lab.scene import Scene, WorldFile
from lit_mm.mistake import Mistake
from tests.lab.conftest import RandomScene


@pytest.fixture(scope="module")
def scenes(random_scene: RandomScene) -> list[Scene]:
    rng = np.random.default_rng(2)
    return [random_scene(rng) for _ in range(500)]


@pytest.fixture(scope="module")
def captions(world: WorldFile, scenes: list[Scene]) -> dict[bool, list[str]]:
    rng = np.random.default_rng(3)
    return {dense: [caption(world, scene, rng, dense) for scene in scenes] for dense in (True, False)}


@pytest.mark.parametrize("dense", [True, False])
def test_what_captions_state_is_true(
    world: WorldFile, scenes: list[Scene], captions: dict[bool, list[str]], dense: bool
) -> None:
    for scene, text in zip(scenes, captions[dense], strict=True):
        stated = parse(world, text)
        assert stated
        assert stated <= facts(world, scene), text


def test_dense_captions_say_much_and_sparse_ones_little(world: WorldFile, captions: dict[bool, list[str]]) -> None:
    words = [len(text.split()) for text in captions[True]]
    assert min(words) >= 25
    assert max(words) <= 45
    assert {len(parse(world, text)) for text in captions[False]} == {1, 2, 3}
    kinds = Counter(fact.kind for text in captions[True] for fact in parse(world, text))
    assert kinds["facing"] == kinds["on"] == len(captions[True])
    assert min(kinds[kind] for kind in ("ahead", "there", "count", "side", "most", "night")) > 50


def test_every_phrase_states_its_fact_and_no_other(world: WorldFile) -> None:
    for fact in all_facts(world):
        assert len(phrases(world, fact)) > 1
        for phrase in phrases(world, fact):
            assert parse(world, f"{phrase.capitalize()}.") == {fact}
    facings = [fact for fact in all_facts(world) if fact.kind == "facing"]
    for facing, other in product(facings, [Fact("ahead", "tree", True), Fact("on", "sand", True)]):
        for phrase in pairs(world, facing, other):
            assert parse(world, phrase) == {facing, other}


def test_captions_differ_and_repeat_for_a_seed(
    world: WorldFile, scenes: list[Scene], captions: dict[bool, list[str]]
) -> None:
    rng = np.random.default_rng(3)
    assert [caption(world, scene, rng, dense=True) for scene in scenes] == captions[True]
    assert len({caption(world, scenes[0], rng, dense=True) for _ in range(50)}) > 45


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("There are three trees.", {("count", "tree", 3)}),
        ("You see a cow,  two zombies and no water", {("count", "cow", 1), ("count", "zombie", 2), ("there", "water", False)}),
        ("There are two cows, water and a tree.", {("count", "cow", 2), ("there", "water", True), ("count", "tree", 1)}),
        ("there are trees. IT IS NIGHT", {("there", "tree", True), ("night", "", True)}),
        ("You stand on sand, facing left.", {("on", "sand", True), ("facing", "player", "left")}),
    ],
)  # fmt: skip
def test_what_a_person_writes_is_understood(world: WorldFile, text: str, stated: set[Fact]) -> None:
    assert parse(world, text) == stated


@pytest.mark.parametrize("text", ["There are three dragons.", "You see grass and a cat.", "", "Trees trees."])
def test_what_is_outside_the_grammar_is_refused_in_one_sentence(world: WorldFile, text: str) -> None:
    with pytest.raises(Mistake, match=r"^caption: '.*' is no sentence of world 'crafter'; the nearest one is '.*'$"):
        parse(world, text)


def test_what_a_model_writes_is_understood_as_far_as_it_goes(world: WorldFile) -> None:
    found = parse_leniently(world, "You see water. There are two two cows. It is night. You see grass and wat")
    assert found.facts == {Fact("there", "water", True), Fact("night", "", True)}
    assert found.sentences == 4
    assert found.unknown == ("there are two two cows", "you see grass and wat")

"""Captions of scenes from their facts, and the facts that a caption states."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from lit_mm.lab.chance import one_of, shuffled
from lit_mm.lab.facts import Fact, facts
from lit_mm.lab.phrases import pairs, phrases, sentences
from lit_mm.lab.scene import Scene, WorldFile
from lit_mm.mistake import Mistake

LIST = "you see "  # begins the sentence that names several things in a caption
LISTS = (LIST, "there is ", "there are ")  # people's as well
WEIGHTS = {"facing": 2, "ahead": 2, "on": 2, "item": 4, "side": 4, "absent": 1, "most": 1, "night": 1}
FEWEST_WORDS, MOST_WORDS = 25, 45  # of a dense caption
MOST_LISTED = 6


class Parsed(NamedTuple):
    """What a text states.

    Attributes:
        facts: of the sentences in the grammar.
        sentences: how many there are.
        unknown: those outside the grammar.
    """

    facts: frozenset[Fact]
    sentences: int
    unknown: tuple[str, ...]


def caption(world: WorldFile, scene: Scene, rng: np.random.Generator, dense: bool) -> str:
    """A true caption of a scene.

    Args:
        world: that the scene is of.
        scene: with a player in its place and no unreadable tile.
        rng: chooses the facts, their order and their words.
        dense: 25 to 45 words that say most of what there is; otherwise one to three facts.
    """
    said = _dense(world, scene, rng) if dense else sparse(world, scene, rng)
    return text_of(shuffled(said, rng))


def text_of(said: Iterable[str]) -> str:
    """Sentences in a row, each with its capital letter and full stop."""
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in said)


def parse(world: WorldFile, caption: str) -> frozenset[Fact]:
    """The facts that a caption states.

    Raises:
        Mistake: a sentence is outside the grammar.
    """
    found = parse_leniently(world, caption)
    if found.unknown or not found.sentences:
        wrong = found.unknown[0] if found.unknown else caption
        near = difflib.get_close_matches(wrong, sentences(world), n=1, cutoff=0.0)[0]
        raise Mistake(f"caption: '{wrong}' is no sentence of world '{world.name}'; the nearest one is '{near}'")
    return found.facts


def parse_leniently(world: WorldFile, text: str) -> Parsed:
    """The facts that a text states, as a model may write it: sentences outside the grammar are returned as they are."""
    said = [" ".join(part.split()).lower() for part in re.split(r"[.!?\n]", text)]
    said = [sentence for sentence in said if sentence]
    meant = [_facts_of(world, sentence) for sentence in said]
    known = frozenset[Fact]().union(*(found for found in meant if found))
    return Parsed(known, len(said), tuple(one for one, found in zip(said, meant, strict=True) if not found))


def _facts_of(world: WorldFile, sentence: str) -> frozenset[Fact]:
    """Of one sentence in small letters; none, if it is outside the grammar."""
    known = sentences(world)
    start = next((start for start in LISTS if sentence.startswith(start)), "")
    if sentence in known or not start:
        return known.get(sentence, frozenset())
    items = re.split(r", | and ", sentence.removeprefix(start))
    meant = [known.get(f"{LIST}{item}", frozenset()) for item in items]
    return frozenset[Fact]().union(*meant) if all(meant) else frozenset()


def _dense(world: WorldFile, scene: Scene, rng: np.random.Generator) -> list[str]:
    pools = _pools(world, scene)
    said = [*_of_the_player(world, pools, rng), *_list(world, shuffled(pools["item"], rng)[:MOST_LISTED], rng)]
    sides, absent = shuffled(pools["side"], rng), shuffled(pools["absent"], rng)
    most = pools["most"] if rng.random() < 0.5 else []
    wanted = shuffled([*sides[:3], *absent[:2], *most], rng)
    if rng.random() < 0.25 or any(fact.value for fact in pools["night"]):  # daylight goes mostly without saying
        wanted = [*pools["night"], *wanted]
    for fact in wanted:
        sentence = one_of(phrases(world, fact), rng)
        if _words([*said, sentence]) <= MOST_WORDS:
            said.append(sentence)
    for fact in [*sides[3:], *absent[2:]]:  # where there is little to say
        if _words(said) < FEWEST_WORDS:
            said.append(one_of(phrases(world, fact), rng))
    return said


def sparse(world: WorldFile, scene: Scene, rng: np.random.Generator) -> list[str]:
    """One to three sentences about a scene, each of another kind, without capital letter and full stop."""
    pools = {name: pool for name, pool in _pools(world, scene).items() if pool}
    said = []
    for _ in range(min(int(rng.integers(1, 4)), len(pools))):
        name = one_of(list(pools), rng, [WEIGHTS[name] for name in pools])
        said.append(one_of(phrases(world, one_of(pools.pop(name), rng)), rng))
    return said


def _of_the_player(world: WorldFile, pools: dict[str, list[Fact]], rng: np.random.Generator) -> list[str]:
    """Where it looks, what is there, and what it stands on; the first together with one of the others, if need be."""
    said = [fact for name in ("facing", "ahead", "on") for fact in pools[name]]
    joined = int(rng.integers(3))
    if not pools["facing"] or joined == 0 or joined >= len(said):
        return [one_of(phrases(world, fact), rng) for fact in said]
    other = said.pop(joined)
    return [one_of(pairs(world, said[0], other), rng), *(one_of(phrases(world, fact), rng) for fact in said[1:])]


def _list(world: WorldFile, items: list[Fact], rng: np.random.Generator) -> list[str]:
    """One sentence that names them all."""
    if not items:
        return []
    words = [one_of([p for p in phrases(world, fact) if p.startswith(LIST)], rng).removeprefix(LIST) for fact in items]
    return [LIST + (", ".join(words[:-1]) + " and " if words[1:] else "") + words[-1]]


def _pools(world: WorldFile, scene: Scene) -> dict[str, list[Fact]]:
    """Facts that a caption may state, by what they are about: `item` is what is in view, with its number if counted."""
    pools: dict[str, list[Fact]] = {name: [] for name in WEIGHTS}
    for fact in sorted(facts(world, scene)):  # a set has no order of its own
        if fact.aspect != "there":
            pools["item" if fact.kind == "count" else fact.aspect].append(fact)
        elif not world.kinds[fact.thing].plural:
            pools["item"].append(fact)
    return pools


def _words(said: Sequence[str]) -> int:
    return sum(len(sentence.split()) for sentence in said)

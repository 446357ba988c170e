"""Conversations about a picture: what each step would do, on which side everything is, and other questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_modules.reading.actions import PREFIX, format_action
from data_modules.recipes.world_episodes import WORDS, facings
from lit_mm.lab.chance import one_of, shuffled
from lit_mm.lab.moves import STAY, step
from lit_mm.lab.questions import Question, all_questions
from lit_mm.lab.scene import Scene, WorldFile

IN_WORDS = 0.15  # share of steps that are told in words; the others are told in numbers, as most are in the videos
FREE = 0.6  # share of the steps into a free tile that are asked about: nearly as many then as into blocked ones
STILL = 0.2  # share of pictures of which standing still is asked about
STEPS_LAST = 0.3  # share of conversations in which steps come last, not first

Turns = list[tuple[str, str]]


def conversation(world: WorldFile, scene: Scene, asked: Sequence[Question], random: np.random.Generator) -> Turns:
    """Questions and answers about a scene.

    An action stands where it stands in the videos, right behind the picture, and is answered by whether the player
    would leave its tile, "Yes." or "No.". An answer begins with a space: with its question it is then written, and cut
    into tokens, as in one text.

    Args:
        world: that the scene is of.
        scene: with a player in its place and no unreadable tile.
        asked: questions that come beside those of steps and sides.
        random: chooses steps, their words, and the order.
    """
    keys = [key for key in world.moves if step(world, scene, key) == STAY or random.random() < FREE]
    keys += [""] if random.random() < STILL else []
    steps = [(_action(world, key, random), "No." if step(world, scene, key) == STAY else "Yes.") for key in keys]
    sides = [(one.question, one.answer) for one in all_questions(world, scene, "side", random)]
    others = [(one.question, one.answer) for one in asked if one.kind != "side"]
    parts = [shuffled(steps, random), shuffled([*sides, *others], random)]
    turns = parts[1] + parts[0] if random.random() < STEPS_LAST else parts[0] + parts[1]
    return [(question, f" {answer}") for question, answer in turns]


def entry(picture: str, turns: Turns) -> dict[str, Any]:
    """A line in the layout of LLaVA."""
    said = [{"from": who, "value": text} for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)]
    return {"image": picture, "conversations": said}


def _action(world: WorldFile, key: str, random: np.random.Generator) -> str:
    """A step as it is told in videos with actions."""
    if random.random() < IN_WORDS:
        return PREFIX + one_of(WORDS[facings(world).get(key, "")], random)
    down, right = world.moves[key] if key else STAY
    return format_action(-down, -right, 0.0, 1.0)

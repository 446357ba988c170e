"""What configs/prompts/lab.yaml shows as the truth is true of what it asks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from data_modules.prompting.prompts import Prompts
from data_modules.prompting.steering import Steering
from lit_mm.lab.facts import facts
from lit_mm.lab.grammar import parse
from lit_mm.lab.moves import moved, step
from lit_mm.lab.scene import WorldFile
from lit_mm.lab.tiles import read_picture
from lit_mm.prompt import Prompt
from tests.helpers.program import ROOT

WALK = ("W", "S", "S", "S", "A", "D", "D", "W")


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    steering = Steering.load(str(ROOT / "configs/steering/crafter.yaml"))
    asked = Prompts(str(ROOT / "configs/prompts/lab.yaml"), 64, steering)
    return [prompt for prompt in (asked[i] for i in range(len(asked))) if isinstance(prompt, Prompt)]


def test_captions_are_true_of_the_pictures_beside_them(world: WorldFile, prompts: list[Prompt]) -> None:
    drawn = [prompt for prompt in prompts if prompt.wanted == "image" and prompt.truth is not None]
    assert len(drawn) == 6
    for prompt in drawn:
        assert isinstance(prompt.truth, Tensor)
        (scene,) = read_picture(world, prompt.truth)
        assert parse(world, str(prompt.parts[0])) <= facts(world, scene), prompt.name


def test_the_recorded_walk_does_what_is_told(world: WorldFile, prompts: list[Prompt]) -> None:
    (walk,) = [prompt for prompt in prompts if prompt.name == "walk"]
    seen = walk.parts[0]
    assert isinstance(seen, Tensor)
    assert isinstance(walk.truth, Tensor)
    scenes = read_picture(world, torch.cat([seen[None], walk.truth]))
    offsets = [moved(world, before, then) for before, then in zip(scenes, scenes[1:], strict=False)]
    assert offsets == [step(world, scene, key) for scene, key in zip(scenes, WALK, strict=False)]
    assert offsets[0] == (0, 0), "the first step is blocked"

"""Texts about one map that nobody sees: descriptions, and short walks in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_modules.recipes.stroller import Stroller
from data_modules.recipes.world import Map
from data_modules.recipes.world_cuts import Cut
from data_modules.recipes.world_episodes import facings
from lit_mm.lab.grammar import caption
from lit_mm.lab.moves import walk_text

WALKS = 0.5  # share of texts that tell a walk; the others describe a place
STEPS = (2, 6)  # of a walk
DENSE = 0.7  # share of descriptions that say most of what there is
TRIES = 40  # places to start from for each text that is asked for


def write_texts(of: Map, cut: Cut, count: int, seed: list[int]) -> list[dict[str, Any]]:
    """Rows of a JSON Lines file: "text", "world", and the facts: "tiles" of each place, "keys" between them, "night".

    Args:
        of: the map.
        cut: what no place shows that a text is about.
        count: how many; fewer where the map has too few places left.
        seed: decides places, walks and words.
    """
    world, rules = of.world, of.rules
    without = cut.keys(facings(rules))
    rows: list[dict[str, Any]] = []
    for attempt in range(count * TRIES):
        if len(rows) == count:
            break
        random = np.random.default_rng([*seed, attempt])
        world.place(random, night=bool(random.random() < of.night))
        stroller = Stroller(rules, random, without)
        scenes, keys = [world.scene()], []
        for _ in range(random.integers(STEPS[0], STEPS[1] + 1) if random.random() < WALKS else 0):
            keys.append(stroller.key(scenes[-1]))
            world.step(keys[-1])
            scenes.append(world.scene())
        if not all(map(cut.allows, scenes)):
            continue
        if keys:
            text = walk_text(rules, scenes, keys, random)
        else:
            text = caption(rules, scenes[0], random, dense=bool(random.random() < DENSE))
        tiles = [scene.tiles.tolist() for scene in scenes]
        rows.append({"text": text, "world": of.name, "tiles": tiles, "keys": keys, "night": scenes[0].night})
    return rows

"""Crafter as a world of the laboratory, against Crafter's own engine and renderer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from crafter import constants, engine, objects

from data_modules.recipes.crafter_tiles import NIGHT, textures, tile_table
from data_modules.recipes.crafter_world import MOVES, Crafter, CrafterWorld
from data_modules.recipes.stroller import Stroller
from data_modules.recipes.world_data import write_world
from lit_mm.lab.scene import WorldFile
from lit_mm.lab.tiles import read_tiles
from lit_mm.mistake import Mistake
from tests.helpers.program import ROOT

FACING = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
KEYS = ("", *MOVES)


@pytest.fixture(scope="module")
def made() -> CrafterWorld:
    return Crafter().start(1)


@pytest.fixture
def world(made: CrafterWorld) -> CrafterWorld:
    return made.copy()


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("view", [4, 8, 16])
def test_pictures_have_the_bytes_of_crafters_renderer(
    world: CrafterWorld, random: np.random.Generator, view: int
) -> None:
    world.kind = Crafter(view=view)
    for _ in range(12):
        world.place(random)
        for key in random.choice(KEYS, 3):
            world.step(key)
            local = engine.LocalView(world.engine, textures(), (view, view))
            theirs = local(world.player, (64 // view, 64 // view)).astype(np.uint8).transpose(1, 0, 2)
            assert theirs.shape == (64, 64, 3)
            assert (world.picture() == theirs).all()


def test_scenes_say_what_crafters_engine_says(world: CrafterWorld, random: np.random.Generator) -> None:
    table, edges = tile_table(), 0
    classes = {"cow": objects.Cow, "zombie": objects.Zombie, "skeleton": objects.Skeleton, "arrow": objects.Arrow,
               "sapling": objects.Plant, "player": objects.Player}  # fmt: skip
    for _ in range(30):
        world.place(random)
        for (row, column), number in np.ndenumerate(world.scene().tiles):
            tile = table[number]
            ground, thing = world.engine[world.player.pos + np.array([column - 4, row - 4])]
            edges += ground is None
            assert tile["ground"] == (ground or "edge")
            assert ("thing" in tile) == (thing is not None)
            if thing is not None:
                assert isinstance(thing, classes[tile["thing"]])
                assert "facing" not in tile or FACING[tile["facing"]] == tuple(thing.facing)
    assert edges, "some views reach beyond the map"


def test_the_player_moves_by_the_map_and_nothing_harms_it(world: CrafterWorld, random: np.random.Generator) -> None:
    free_steps = blocked = 0
    for _ in range(40):
        world.place(random)
        for key in random.choice(list(MOVES), 6):
            down, right = MOVES[key]
            ahead = world.player.pos + np.array([right, down])
            ground, thing = world.engine[ahead]
            free = ground in constants.walkable and thing is None
            x, y = world.position
            world.step(key)
            assert world.position == ((x + right, y - down) if free else (x, y))
            assert tuple(world.player.facing) == (right, down)
            free_steps, blocked = free_steps + free, blocked + (not free)
    assert free_steps
    assert blocked
    x, y = world.position
    world.engine[world.player.pos - np.array([0, 1])] = "lava"
    world.step("W")
    assert world.position == (x, y), "lava stops the player"
    for _ in range(200):
        world.step("")
    assert world.player.health == constants.items["health"]["max"]


def test_everything_in_the_world_is_shown_often(world: CrafterWorld, random: np.random.Generator) -> None:
    shown = {name: 0 for tile in tile_table() for name in (tile["ground"], tile.get("thing", "player"))}
    for _ in range(300):
        world.place(random)
        tiles = [tile_table()[number] for number in np.unique(world.scene().tiles)]
        for name in {name for tile in tiles for name in tile.values()} & shown.keys():
            shown[name] += 1
    assert min(shown.values()) >= 0.04 * 300, shown


def test_creatures_move_and_a_copy_goes_the_same_way(world: CrafterWorld, random: np.random.Generator) -> None:
    world.place(random)
    other = world.copy()
    seen = []
    for key in random.choice(KEYS, 40):
        world.step(key)
        other.step(key)
        assert (world.scene().tiles == other.scene().tiles).all()
        seen.append([tuple(thing.pos) for thing in world.engine.objects if isinstance(thing, objects.Cow)])
    assert any(one != seen[0] for one in seen)


def test_saplings_keep_their_look(world: CrafterWorld) -> None:
    plant = next(thing for thing in world.engine.objects if isinstance(thing, objects.Plant))
    world.engine.move(world.player, next(p for p in np.argwhere(world._free()) if 1 < abs(p - plant.pos).sum() < 4))
    for creature in [thing for thing in world.engine.objects if not isinstance(thing, objects.Plant | objects.Player)]:
        world.engine.remove(creature)
    for _ in range(320):
        world.step("")
    assert not plant.removed
    assert (world.picture() == world.rendered()).all()


def test_busy_is_things_for_each_hundred_free_tiles(made: CrafterWorld) -> None:
    things = [thing for thing in made.engine.objects if thing is not made.player]
    put = len(things) + made.engine.count("table") + made.engine.count("furnace")
    free = sum(made.engine.count(name) for name in constants.walkable) + made.engine.count("table")
    assert 100 * put / free == pytest.approx(4, abs=0.5)
    empty = Crafter(busy=0).start(2)
    assert empty.engine.objects == [empty.player]
    stone = [world.engine.mask(0, 48, 0, 48, "stone") for world in (made, empty)]
    assert (stone[0] != stone[1]).any(), "a seed decides the map"


@pytest.mark.parametrize("view", [4, 8, 16])
@pytest.mark.parametrize("night", [False, True])
def test_every_tile_is_read_by_day_and_at_night(
    world: CrafterWorld, random: np.random.Generator, tmp_path: Path, view: int, night: bool
) -> None:
    world.kind = Crafter(view=view)
    rules = write_world(tmp_path, world.kind)
    pictures, scenes = [], []
    for _ in range(60):
        world.place(random, night=night)
        pictures.append(torch.from_numpy(world.picture()).permute(2, 0, 1))
        scenes.append(world.scene())
    read = read_tiles(rules, torch.stack(pictures))
    assert (read.tiles == np.stack([scene.tiles for scene in scenes])).all()
    assert (read.night == night).all()
    assert all(scene.night == night for scene in scenes)
    assert (read.distance.max() > 1) == night, "nights are noisy"


def test_the_world_file_of_the_tests_is_crafters(tmp_path: Path) -> None:
    write_world(tmp_path, Crafter())
    kept = ROOT / "tests" / "lab" / "crafter"
    assert json.loads((tmp_path / "world.json").read_text()) == json.loads((kept / "world.json").read_text())
    for light, looks in WorldFile.load(tmp_path / "world.json").templates.items():
        assert (looks == WorldFile.load(kept / "world.json").templates[light]).all(), light
    assert 0 < NIGHT < 0.5, "below which Crafter adds noise"


def test_other_views_and_full_worlds_are_refused() -> None:
    with pytest.raises(Mistake, match=r"^view: 9 tiles on a side were asked for; a picture can show 4, 8 or 16$"):
        Crafter(view=9)
    with pytest.raises(Mistake, match=r"^busy: 95 things .* 0 to 30 leave the player room$"):
        Crafter(busy=95)


@pytest.mark.parametrize(("bumps", "least", "most", "far"), [(0, 0.06, 0.24, 150), (0.75, 0.25, 0.5, 100)])
def test_the_scripted_player_gets_about_and_is_sometimes_blocked_more_often_where_it_bumps(
    world: CrafterWorld, random: np.random.Generator, bumps: float, least: float, most: float, far: int
) -> None:
    rules = WorldFile.load(ROOT / "tests" / "lab" / "crafter" / "world.json")
    told, blocked, places = [], 0, set()
    for _ in range(12):
        world.place(random)
        stroller = Stroller(rules, random, bumps=bumps)
        for _ in range(60):
            key, before = stroller.key(world.scene()), world.position
            world.step(key)
            told.append(key)
            blocked += bool(key) and world.position == before
            places.add(world.position)
    moves = [key for key in told if key]
    assert least < blocked / len(moves) < most
    assert 0.01 < told.count("") / len(told) < 0.12
    assert min(moves.count(key) for key in MOVES) > 0.15 * len(moves)
    assert len(places) > far
    without = Stroller(rules, random, without={"A"}, bumps=bumps)
    assert "A" not in [without.key(world.scene()) for _ in range(200)]

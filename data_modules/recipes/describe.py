"""A caption in plain words for a view of a game, from what the game's engine knows about it."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_PHRASES = 4  # kinds of things that a caption names
CLOSE, FAR = 160.0, 480.0  # map units, about 5 m and 15 m
WORDS = {
    "ArmorBonus": "helmet",
    "Fatso": "fat demon",
    "HealthBonus": "potion",
    "DoomImp": "imp",
    "Stalagtite": "stalagmite",
    "TorchTree": "bare tree",
    "Shell": "shotgun shell",
    "ShellBox": "box of shells",
    "Clip": "ammo clip",
    "ClipBox": "box of bullets",
    "RocketAmmo": "rocket",
    "RocketBox": "box of rockets",
    "Cell": "energy cell",
    "Zombieman": "zombie",
    "ShotgunGuy": "shotgun zombie",
    "DeadZombieMan": "dead zombie",
    "DeadShotgunGuy": "dead shotgun zombie",
    "DeadDoomImp": "dead imp",
    "ChaingunGuy": "chaingun zombie",
    "TechLamp2": "tech lamp",
    "HeadsOnAStick": "skulls on a stick",
    "HeadOnAStick": "head on a stick",
    "LiveStick": "body on a stick",
    "DeadStick": "body on a stick",
    "HeadCandles": "pile of skulls",
    "RadSuit": "radiation suit",
}
NUMBERS = {2: "two", 3: "three"}  # more are "several"


@dataclass(frozen=True)
class Thing:
    """One object in a square view.

    Args:
        name: the engine's name of its kind, such as "ShotgunGuy".
        category: the engine's category, such as "Monster".
        centre: of the visible part, from 0 at the left edge to 1 at the right.
        area: of the visible part, as a share of the view.
        distance: from the player, in map units.
    """

    name: str
    category: str
    centre: float
    area: float
    distance: float


@dataclass(frozen=True)
class View:
    """A square view.

    Args:
        picture: (side, side, 3) uint8 RGB.
        depth: (side, side) distances in map units.
        covered: (side, side) bool, where there are things in front of the level itself.
        things: what is seen.
    """

    picture: np.ndarray
    depth: np.ndarray
    covered: np.ndarray
    things: Sequence[Thing]


def describe(view: View) -> str:
    """One sentence: light, kind of place, colours of walls and floor, then the largest things, where and how far."""
    walls, floor = (colour_of(view, *rows) for rows in ((0.3, 0.5), (0.82, 0.98)))
    light = {True: "dark ", False: ""}[view.picture.mean() < 45] or ("bright " if view.picture.mean() > 105 else "")
    place = f"{light}{place_of(view.depth)} with {walls} walls and {_article(floor)} floor"
    return ", ".join([_article(place), *phrases(view.things)])


def place_of(depth: np.ndarray) -> str:
    """What kind of place lies around a view, from the distances at eye level on the left, ahead and on the right."""
    side = len(depth)
    band = depth[round(0.42 * side) : round(0.54 * side)]
    left, ahead, right = (float(np.median(part)) for part in np.array_split(band, 3, axis=1))
    if ahead < 96:
        return "dead end"
    if min(left, ahead, right) > 450:
        return "wide hall"
    if max(left, right) < 200 and ahead > 250:
        return "corridor"
    if left < 96 or right < 96:
        return f"{'room' if ahead < 450 else 'long room'} along a wall on the {'left' if left < right else 'right'}"
    return "long room" if ahead > 450 else "room"


def colour_of(view: View, top: float, bottom: float) -> str:
    """Name of the middle colour of a band of rows, things left out."""
    side = len(view.picture)
    rows = slice(round(top * side), round(bottom * side))
    pixels, covered = view.picture[rows].reshape(-1, 3), view.covered[rows].reshape(-1)
    return colour_name(np.median(pixels if covered.all() else pixels[~covered], axis=0))


def colour_name(rgb: np.ndarray) -> str:
    """One of a dozen everyday names for a colour (3,) of 0 to 255."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(np.asarray(rgb, float) / 255))
    degrees = 360 * hue
    if value < 0.12:
        return "black"
    if saturation < 0.2:
        return "dark grey" if value < 0.35 else "grey" if value < 0.7 else "white"
    if degrees < 50:
        if saturation > 0.75 and value > 0.5:
            return "red" if degrees < 15 else "orange"
        return "red" if degrees < 10 and saturation > 0.5 else "dark brown" if value < 0.35 else "brown"
    names = ((70, "yellow" if value > 0.6 else "olive"), (170, "green"), (260, "blue"), (335, "purple"))
    return next((name for limit, name in names if degrees < limit), "red")


def phrases(things: Sequence[Thing]) -> list[str]:
    """Such as "two imps far on the left": equal things on one side together, those that fill most of the view first."""
    groups: dict[tuple[str, str], list[Thing]] = {}
    for thing in things:
        groups.setdefault((word_for(thing), side_of(thing)), []).append(thing)
    largest = sorted(groups.items(), key=lambda group: (-sum(t.area for t in group[1]), group[0]))
    said = []
    for (word, side), members in largest[:MOST_PHRASES]:
        nearest = min(thing.distance for thing in members)
        how_far = "close " if nearest < CLOSE else "far " if nearest > FAR else ""
        said.append(f"{counted(word, len(members))} {how_far}{side}")
    return said


def side_of(thing: Thing) -> str:
    """In which third of the view its middle lies."""
    return "on the left" if thing.centre < 1 / 3 else "on the right" if thing.centre > 2 / 3 else "ahead"


def word_for(thing: Thing) -> str:
    """Its kind in words, as the engine names it; the many kinds of remains are one."""
    if thing.name in WORDS:
        return WORDS[thing.name]
    if thing.category in ("Gore", "Gibs"):
        dead = re.fullmatch("Dead([A-Z].*)", thing.name)
        return f"dead {_split(dead[1])}" if dead else "remains"
    return _split(thing.name)


def counted(word: str, count: int) -> str:
    """A word with its number, "an imp" or "two boxes of shells"."""
    if word == "remains" or word.startswith("skulls"):
        return word
    if count == 1:
        return _article(word)
    first, of, rest = word.partition(" of ") if " of " in word else word.partition(" on ")
    plural = first[:-1] + "ies" if first.endswith("dy") else first + ("es" if first.endswith(("x", "ch", "s")) else "s")
    return f"{NUMBERS.get(count, 'several')} {plural}{of}{rest}"


def _split(name: str) -> str:
    """For instance "BurningBarrel" to "burning barrel"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower().rstrip("0123456789")


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"

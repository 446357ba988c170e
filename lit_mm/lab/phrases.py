"""Facts in words: every sentence that says one fact, or two about the player."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

from lit_mm.lab.facts import MANY, SIDES, Fact
from lit_mm.lab.scene import FACINGS, PLAYER, WorldFile
from lit_mm.mistake import Mistake

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "many")  # of things in view
PLACES = {"left": "to the left", "right": "to the right", "above": "above", "below": "below"}


def all_facts(world: WorldFile) -> list[Fact]:
    """Every fact that can be said of some scene of a world."""
    names = list(world.kinds)
    counted = [name for name, kind in world.kinds.items() if kind.plural]
    return [
        *(Fact("facing", PLAYER, way) for way in FACINGS),
        *(Fact(kind, name, True) for kind in ("ahead", "on", "most") for name in names),  # type: ignore[arg-type]
        *(Fact("there", name, value) for name in names for value in (True, False)),
        *(Fact("count", name, number) for name in counted for number in range(1, MANY + 1)),
        *(Fact("side", name, side) for name in names for side in SIDES),
        *(Fact("night", "", value) for value in (True, False)),
    ]


def phrases(world: WorldFile, fact: Fact) -> tuple[str, ...]:
    """The sentences that say one fact, without capital letter and full stop; more than one for every fact.

    Of what is counted, a caption says how many there are; that there are some is understood, but not said by captions.
    """
    kind, thing, value = fact
    if kind == "facing":
        return f"you face {value}", f"you look {value}", f"you are facing {value}", f"the player faces {value}"
    if kind == "night":
        return ("it is night", "it is dark") if value else ("it is day", "it is light")
    one, some = singular(world, thing), several(world, thing)
    plural = world.kinds[thing].plural is not None
    if kind == "ahead":
        return f"{one} is ahead", f"ahead is {one}", f"in front of you is {one}", f"you look at {one}"
    if kind == "on":
        return f"you stand on {one}", f"you are on {one}", f"the player stands on {one}"
    if kind == "most":
        more, cover = ("are more", "cover") if plural else ("is more", "covers")
        return f"there {more} {some} than anything else", f"{some} {cover} the most room", f"you see {some} most of all"
    if kind == "side":
        place = PLACES[str(value)]
        return (
            f"the nearest {thing} is {place}",
            f"the nearest {thing} lies {place}",
            f"the closest {thing} is {place}",
            f"{place} is the nearest {thing}",
        )
    if kind == "there":
        words = [(some if plural else one) if value else f"no {some}"]
    else:
        words = [f"{NUMBERS[int(value)]} {some}"] if value > 1 else [one, f"one {thing}"]  # type: ignore[operator]
    be = "are" if plural and not (kind == "count" and value == 1) else "is"
    return tuple(
        sentence for word in words for sentence in (f"you see {word}", f"there {be} {word}", f"{word} {be} in view")
    )


def pairs(world: WorldFile, facing: Fact, other: Fact) -> tuple[str, ...]:
    """The sentences that say where the player looks and what is there (`ahead`), or what it stands on (`on`)."""
    noun = singular(world, other.thing)
    if other.kind == "ahead":
        return f"you face {facing.value}, towards {noun}", f"you look {facing.value} at {noun}"
    return f"you stand on {noun} and face {facing.value}", f"you stand on {noun}, facing {facing.value}"


@lru_cache(maxsize=4)
def sentences(world: WorldFile) -> dict[str, frozenset[Fact]]:
    """What every sentence of the grammar says, lists apart (see `lit_mm.lab.grammar`).

    Raises:
        Mistake: a sentence says two things, because kinds of the world have the same words.
    """
    known = all_facts(world)
    said: dict[str, frozenset[Fact]] = {}
    for fact in known:
        for sentence in phrases(world, fact):
            if sentence in said:
                raise Mistake(f"world '{world.name}': '{sentence}' could mean two things; give its kinds other names")
            said[sentence] = frozenset([fact])
    facings = [fact for fact in known if fact.kind == "facing"]
    for facing, other in product(facings, (fact for fact in known if fact.kind in ("ahead", "on"))):
        said |= {sentence: frozenset([facing, other]) for sentence in pairs(world, facing, other)}
    return said


def singular(world: WorldFile, name: str) -> str:
    """One of a kind, such as "a tree" and "an arrow"; only "water", where it is not counted."""
    kind = world.kinds[name]
    article = kind.article or (("an" if name[0] in "aeiou" else "a") if kind.plural else "")
    return f"{article} {name}".strip()


def several(world: WorldFile, name: str) -> str:
    """All of a kind, such as "trees"; only "water", where it is not counted."""
    return world.kinds[name].plural or name

"""What can be left out of a stream of data: an object, a relation, a count or a direction."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass

from lit_mm.lab.facts import MANY, SIDES, Fact
from lit_mm.lab.scene import FACINGS, PLAYER, WorldFile
from lit_mm.mistake import Mistake


@dataclass(frozen=True)
class Concept:
    """A fact with a name: `diamond`, `water:left`, `trees:3`, `trees:many` or `facing:left`."""

    name: str
    fact: Fact

    @classmethod
    def parse(cls, world: WorldFile, text: str) -> Concept:
        """The concept that a text names.

        Raises:
            Mistake: there is none of that name in the world.
        """
        known = concepts(world)
        name = text.strip().lower()
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            forms = "an object, such as diamond, a relation, water:left, a count, trees:3, or a direction, facing:left"
            raise Mistake(
                f"concept '{text}': world '{world.name}' has none of that name; did you mean '{near}'? ({forms})"
            )
        return cls(name, known[name])

    def shown(self, facts: Collection[Fact]) -> bool:
        """Whether a scene of these facts shows it."""
        return self.fact in facts


def concepts(world: WorldFile) -> dict[str, Fact]:
    """All concepts of a world, by name."""
    known = {name: Fact("there", name, True) for name in world.kinds}
    known |= {f"{name}:{side}": Fact("side", name, side) for name in world.kinds for side in SIDES}
    for name, kind in world.kinds.items():
        if kind.plural:
            known |= {f"{kind.plural}:{number}": Fact("count", name, number) for number in range(1, MANY)}
            known[f"{kind.plural}:many"] = Fact("count", name, MANY)
    return known | {f"facing:{way}": Fact("facing", PLAYER, way) for way in FACINGS}

"""What is left out of which stream: no picture, frame or text of it shows the concept."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from lit_mm.lab.concepts import Concept
from lit_mm.lab.facts import facts
from lit_mm.lab.scene import Scene, WorldFile
from lit_mm.mistake import Mistake

STREAMS = ("generation", "reading", "questions", "video", "text")


def parse_cuts(world: WorldFile, without: Sequence[str]) -> dict[str, list[str]]:
    """Names of the concepts that are cut from each stream.

    Args:
        world: whose concepts there are.
        without: such as "generation:diamond" or "video:facing:left", a stream and a concept.

    Raises:
        Mistake: there is no such stream or concept.
    """
    cuts: dict[str, list[str]] = {stream: [] for stream in STREAMS}
    for text in without:
        stream, colon, concept = text.partition(":")
        if stream not in cuts or not colon:
            near = difflib.get_close_matches(stream, STREAMS, n=1, cutoff=0.0)[0]
            raise Mistake(
                f"without: '{text}' names no stream; write a stream ({', '.join(STREAMS)}), a colon and a concept, "
                f"such as '{near}:diamond'"
            )
        try:
            cuts[stream].append(Concept.parse(world, concept).name)
        except Mistake as error:
            raise Mistake(f"without: '{text}': {error.sentence}") from error
    return {stream: sorted(set(names)) for stream, names in cuts.items()}


class Cut:
    """Tells whether a scene may be in a stream.

    Args:
        world: the scenes' own.
        names: of the concepts that are cut.
    """

    def __init__(self, world: WorldFile, names: Sequence[str]) -> None:
        self.world = world
        self.concepts = [Concept.parse(world, name) for name in names]

    def allows(self, scene: Scene) -> bool:
        """Whether a scene shows none of the concepts."""
        if not self.concepts:
            return True
        true = facts(self.world, scene)
        return not any(concept.shown(true) for concept in self.concepts)

    def keys(self, facings: Mapping[str, str]) -> set[str]:
        """Those keys that would turn the player in a way that is cut; `facings` says which way each key turns."""
        cut = {concept.fact.value for concept in self.concepts if concept.fact.kind == "facing"}
        return {key for key, facing in facings.items() if facing in cut}

"""Whether the view moves as it is told: by keys, triples, and sentences that were never trained on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.evaluation.lab.judge import SHOWN, TOGETHER, DrawingJudge, Verdict, action_source
from callbacks.evaluation.lab.tally import Tally
from callbacks.evaluation.lab.walks import Start, starts, walks
from callbacks.pages.contact_sheet import SheetRow
from data_modules.prompting.steering import Steering, action_texts
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.roll_out import RollOut, roll_out
from lit_mm.lab.moves import STAY, after, moved, step
from lit_mm.lab.scene import FACINGS, UNREADABLE, Scene, WorldFile
from lit_mm.lab.tiles import read_picture

GROUPS = ("keys", "blocked", "triples", "sentences", "walk_to")
Offset = tuple[int, int]

logger = logging.getLogger(__name__)


class Order(NamedTuple):
    """One step that is asked for.

    Attributes:
        start: where.
        group: under which it counts, and under `<group>_<name>` as well.
        name: see `group`.
        said: as in prompts: a key, a triple, or a sentence in double quotes.
        obeyed: the offsets in rows and columns that do what is said.
        free: moves that are not blocked.
    """

    start: Start
    group: str
    name: str
    said: str
    obeyed: frozenset[Offset]
    free: int


class Obeys(DrawingJudge):
    """Tells the model what to do next, from frames of recorded walks, and looks how the view has moved.

    - `keys`, and each alone, `keys/W` to `keys/nothing`: where the way is free.
    - `blocked`: keys whose way is blocked. The view has to stay.
    - `triples`: the same steps as keys where the way is free, written `1,0,0`.
    - `sentences`, and each alone, `sentences/left` to `sentences/still`: "go left", "go up" … and "stand still", where
      the way is free.
    - `walk_to`: "walk to the water" and other things in view, which has to bring the nearest one nearer by a step.
      `walk_to_by_chance`: share of the steps one can take that would.

    Only those steps are asked for after which the truth itself would be recognised: on an empty meadow all steps look
    the same. The keys' meaning is that of `data.steering`.

    `cases` are the most steps of each of the five groups.
    """

    name, streams = "obeys", ("action_video",)

    def judge(self, trainer: Trainer, decoder: Decoder) -> Verdict | None:
        """See `LabJudge.judge`."""
        settings = action_source(self, trainer)
        if settings is None or not self.draws(decoder):
            return None
        recorded = walks(self.data, self.split, self.world, decoder.vision.image_size, settings)
        every = orders(self.world, starts(recorded, settings, 1), self.cases, self.seed)
        path = trainer.datamodule.steering  # type: ignore[attr-defined]
        if path is None:
            logger.warning("%s: keys and triples are left out: set data.steering, which says what they do", self.name)
            every = [order for order in every if order.said.startswith('"')]
        steering = None if path is None else Steering.load(path)
        verdict = Verdict()
        for first in range(0, len(every), TOGETHER):
            some = every[first : first + TOGETHER]
            frames = self._imagine(decoder, some, steering, self.seed + first)
            offsets = judge_orders(self.world, some, frames, verdict.tally)
            every_so_many = max(1, len(every) // SHOWN)
            verdict.sheet += [
                _row(some[i], frames[i], offsets[i]) for i in range(-first % every_so_many, len(some), every_so_many)
            ]
        return verdict

    def _imagine(self, decoder: Decoder, some: Sequence[Order], steering: Steering | None, seed: int) -> Tensor:
        """(orders, 3, size, size) uint8."""
        asked = [
            RollOut(order.start.context, action_texts(order.said, steering), seed + i, self.sampler)
            for i, order in enumerate(some)
        ]
        return decoder.decode(torch.cat(roll_out(decoder, asked))).cpu()


def orders(world: WorldFile, places: Sequence[Start], most: int, seed: int) -> list[Order]:
    """Up to `most` orders of each group, one at each place, those of a group as evenly as the places allow."""
    found: dict[str, list[Order]] = {group: [] for group in GROUPS}
    counts: Counter[tuple[str, str]] = Counter()
    for index in np.random.default_rng(seed).permutation(len(places)):
        possible = list(possible_orders(world, places[index]))
        for group, of_group in found.items():
            choice = [order for order in possible if order.group == group]
            if choice and len(of_group) < most:
                of_group.append(min(choice, key=lambda order: counts[order.group, order.name]))
                counts[of_group[-1].group, of_group[-1].name] += 1
        if all(len(of_group) == most for of_group in found.values()):
            break
    return [order for of_group in found.values() for order in of_group]


def possible_orders(world: WorldFile, start: Start) -> Iterator[Order]:
    """Every order after which the truth would be recognised."""
    scene = start.scene
    offsets = {key: step(world, scene, key) for key in (*world.moves, "")}
    free = [offset for offset in offsets.values() if offset != STAY]
    recognised = {key: offset for key, offset in offsets.items() if _recognised(world, scene, key)}
    for key, offset in recognised.items():
        obeyed = frozenset([offset])
        if key and offset == STAY:
            yield Order(start, "blocked", key, key, obeyed, len(free))
            continue
        way = next((way for way, move in FACINGS.items() if move == offset), None)
        triple = f"{-offset[0]},{-offset[1]},0"  # forward is up, and left is positive
        yield Order(start, "keys", key or "nothing", key or triple, obeyed, len(free))
        yield Order(start, "triples", way or "still", triple, obeyed, len(free))
        yield Order(start, "sentences", way or "still", f'"go {way}"' if way else '"stand still"', obeyed, len(free))
    for thing, kind in world.kinds.items():
        nearer = _nearer(world, scene, thing, free)
        if nearer and not kind.creature and nearer <= set(recognised.values()):
            yield Order(start, "walk_to", thing, f'"walk to the {thing}"', nearer, len(free))


def _recognised(world: WorldFile, scene: Scene, key: str) -> bool:
    """Whether the truth after a step looks like that step and no other."""
    tiles, known = after(world, scene, key)
    return moved(world, scene, Scene(np.where(known, tiles, UNREADABLE), scene.night)) == step(world, scene, key)


def _nearer(world: WorldFile, scene: Scene, thing: str, offsets: Iterable[Offset]) -> frozenset[Offset]:
    """Those offsets that bring the nearest of a kind nearer."""
    shows = [number for number, tile in enumerate(world.tiles) if thing in (tile.ground, tile.thing)]
    places = np.argwhere(np.isin(scene.tiles, shows)) - np.array(world.player)
    if not len(places):
        return frozenset()
    nearest = np.abs(places).sum(1).min()
    return frozenset(offset for offset in offsets if np.abs(places - np.array(offset)).sum(1).min() < nearest)


def judge_orders(world: WorldFile, every: Sequence[Order], frames: Tensor, tally: Tally) -> list[Offset | None]:
    """Count the orders that are obeyed by the frames (orders, 3, height, width) uint8 that follow.

    Returns:
        By which offset each view has moved, None where that cannot be told.
    """
    offsets = [
        moved(world, order.start.scene, scene) for order, scene in zip(every, read_picture(world, frames), strict=True)
    ]
    for order, offset in zip(every, offsets, strict=True):
        for name in (order.group, f"{order.group}/{order.name}"):
            tally.add(name, offset in order.obeyed)
        if order.group == "walk_to":
            tally.add("walk_to_by_chance", len(order.obeyed), order.free)
    return offsets


def _row(order: Order, frame: Tensor, offset: Offset | None) -> SheetRow:
    seen = "not to be told" if offset is None else next((w for w, move in FACINGS.items() if move == offset), "still")
    verdict = "obeyed" if offset in order.obeyed else "not obeyed"
    names = ["context"] * len(order.start.context) + ["then"]
    return SheetRow(torch.cat([order.start.context, frame[None]]), names, f"{order.said}: {seen}, {verdict}")

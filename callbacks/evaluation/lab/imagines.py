"""Whether imagined walks stay true: tile by tile, beside the walks that were recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.evaluation.lab.cases import spread
from callbacks.evaluation.lab.judge import SHOWN, TOGETHER, DrawingJudge, Verdict, action_source
from callbacks.evaluation.lab.tally import Tally
from callbacks.evaluation.lab.walks import Start, starts, walks
from callbacks.pages.contact_sheet import SheetRow
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.roll_out import RollOut, roll_out
from lit_mm.lab.moves import creatures
from lit_mm.lab.scene import UNREADABLE, Scene, WorldFile
from lit_mm.lab.tiles import read_picture
from lit_mm.mistake import Mistake


class Imagines(DrawingJudge):
    """Rolls the model out from frames of recorded walks with the actions that were told there.

    After h steps, `…@<h>` is the share of tiles that are right; the tile of the player, with its facing, among them.

    - `tiles`: of all tiles.
    - `seen`: of those that follow from what was seen: they were in view in a context frame, have not left the view for
      longer than the model's context since, and no creature that was seen could have come there by one place a frame,
      and none truly stands there.
    - `tiles/creatures`: of those that were seen as well, but where a creature could have come or truly stands.
    - `tiles/new`: of those that came into view. Nobody can know them, so a good guess is all there can be.
    - `…_copied@<h>`: the same of the last frame of the context, copied.

    Sources of video with actions in `data` say how long contexts are and how actions are written.

    Args:
        data: see `LabJudge`.
        horizons: steps after which tiles are compared.
        **kwargs: see `DrawingJudge`.
    """

    name, streams = "imagines", ("action_video",)

    def __init__(self, data: str = "data/crafter", horizons: tuple[int, ...] = (1, 2, 4, 8, 16), **kwargs: Any) -> None:
        super().__init__(data, **kwargs)
        if not horizons or min(horizons) < 1:
            raise Mistake(f"callbacks.evaluation.lab.imagines.Imagines: horizons are {horizons}; give steps from 1 on")
        self.horizons = horizons

    def judge(self, trainer: Trainer, decoder: Decoder) -> Verdict | None:
        """See `LabJudge.judge`."""
        settings = action_source(self, trainer)
        if settings is None or not self.draws(decoder):
            return None
        recorded = walks(self.data, self.split, self.world, decoder.vision.image_size, settings)
        cases = spread(starts(recorded, settings, max(self.horizons)), self.cases)
        if not cases:
            raise Mistake(
                f"'{self.data}/action_video/{self.split}' has no walk of {settings.context} frames of context and "
                f"{max(self.horizons)} steps; lower `horizons`"
            )
        verdict = Verdict()
        for first in range(0, len(cases), TOGETHER):
            some = cases[first : first + TOGETHER]
            frames = self._imagine(decoder, some, self.seed + first)
            for number, (case, of_case) in enumerate(zip(some, frames, strict=True), start=first):
                judge_walk(self.world, case, self.horizons, read_picture(self.world, of_case), verdict.tally)
                if number % max(1, len(cases) // SHOWN) == 0:
                    verdict.sheet += _rows(case, of_case, self.horizons)
        return verdict

    def _imagine(self, decoder: Decoder, cases: Sequence[Start], seed: int) -> Tensor:
        """(cases, horizons, 3, size, size) uint8."""
        asked = [RollOut(case.context, case.actions, seed + i, self.sampler) for i, case in enumerate(cases)]
        kept = torch.tensor(self.horizons) - 1
        latents = torch.stack(roll_out(decoder, asked))[:, kept.to(decoder.device)]
        return decoder.decode(latents.flatten(0, 1)).cpu().unflatten(0, latents.shape[:2])


class Places(NamedTuple):
    """What can be known of the tiles of a frame, each (rows, columns) bool; together they are all tiles.

    Attributes:
        seen: they follow from what was seen.
        creatures: they were seen, but a creature may change them.
        new: they came into view.
    """

    seen: np.ndarray
    creatures: np.ndarray
    new: np.ndarray


def judge_walk(world: WorldFile, case: Start, horizons: Sequence[int], imagined: Sequence[Scene], tally: Tally) -> None:
    """Count the tiles of one roll-out that are right after each number of steps, and those of the copied last frame."""
    for steps, scene in zip(horizons, imagined, strict=True):
        truth = case.walk.scenes[case.coming[steps - 1]]
        known = known_places(world, case, steps)
        every = np.ones_like(truth.tiles, bool)
        places = {"tiles": every, "seen": known.seen, "tiles/creatures": known.creatures, "tiles/new": known.new}
        for suffix, shown in (("", scene), ("_copied", case.scene)):
            right = (shown.tiles == truth.tiles) & (truth.tiles != UNREADABLE)
            for name, where in places.items():
                tally.add(f"{name}{suffix}@{steps}", right[where].sum(), where.sum())


def known_places(world: WorldFile, case: Start, steps: int) -> Places:
    """Which tiles follow from what was seen, so many steps later; see `Imagines`."""
    frames = [*case.seen, *case.coming[:steps]]
    corners = case.walk.places[frames]
    known = _remembered(world, corners, len(case.seen))
    moving = creatures(world, case.walk.scenes[frames[-1]]) | _reached(world, case, frames[-1])
    return Places(known & ~moving, known & moving, ~known)


def _remembered(world: WorldFile, corners: np.ndarray, context: int) -> np.ndarray:
    """(rows, columns) bool of the last of some views: in view all along since the first `context` of them.

    All along means in one of the last `context` views each time, which is as far as the model looks back.
    """
    spots = _spots(world)
    known = [np.ones(spots.shape[:2], bool)] * context
    for number in range(context, len(corners)):
        window = range(number - context, number)
        seen = [_looked_up(known[before], spots + corners[number] - corners[before]) for before in window]
        known.append(np.logical_or.reduce(seen))
    return known[-1]


def _reached(world: WorldFile, case: Start, frame: int) -> np.ndarray:
    """(rows, columns) bool of a frame: where creatures that were seen could be by now, each from where it was last."""
    places, last = case.walk.places, case.seen[-1]
    spots = _spots(world)
    found = np.zeros(spots.shape[:2], bool)
    for seen in case.seen:
        stood = np.argwhere(creatures(world, case.walk.scenes[seen])) + places[seen]
        if seen != last:
            stood = stood[~_inside(stood - places[last], found.shape)]
        away = np.abs(spots - (stood - places[frame])[:, None, None]).sum(-1)
        found |= (away <= frame - seen).any(0)
    return found


def _spots(world: WorldFile) -> np.ndarray:
    """(rows, columns, 2), row and column of every tile."""
    return np.indices((world.rows, world.columns)).transpose(1, 2, 0)


def _looked_up(table: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values of a table (rows, columns) bool at places (…, 2); False outside it."""
    inside = _inside(places, table.shape)
    rows, columns = np.where(inside[..., None], places, 0).transpose(2, 0, 1)
    return inside & table[rows, columns]


def _inside(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which places (…, 2) are in a table of this shape, (…) bool."""
    return np.asarray(((places >= 0) & (places < shape)).all(-1))


def _rows(case: Start, imagined: Tensor, horizons: Sequence[int]) -> list[SheetRow]:
    shown = case.context
    names = ["context"] * len(shown) + [f"+{steps}" for steps in horizons]
    truth = case.walk.frames[[case.coming[steps - 1] for steps in horizons]]
    return [
        SheetRow(torch.cat([shown, truth]), names, "the truth"),
        SheetRow(torch.cat([shown, imagined]), names, "imagined"),
    ]

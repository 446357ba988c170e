"""A model that knows the truth of a small world, in place of a trained one."""

from __future__ import annotations

import copy
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import torch
from torch import Tensor

from callbacks.evaluation.lab.cases import picture_cases
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.request import Continuation, Request
from lit_mm.generation.roll_out import RollOut, as_latents, shown
from lit_mm.lab.scene import WorldFile
from lit_mm.sequence import Frame, Segment, Text
from tests.helpers.small_world import GROUNDS, MOVES, PLAYER, SIDE, TOLD, SmallWorld, small_picture, small_textures

SENTENCES = {"W": "go up", "A": "go left", "S": "go down", "D": "go right", "": "stand still"}


class Oracle:
    """Says and draws what is true, on pixels; or, so many cases or keys later, what is true of something else.

    What it was never told of is answered with a copy of the last picture.
    """

    def __init__(self, folder: Path, later: int = 0) -> None:
        self.texts: dict[tuple[int, str], str] = {}
        self.pictures: dict[tuple[int | str, ...], Tensor] = {}
        for stream in ("drawing", "reading", "questions"):
            cases = picture_cases(WorldFile.load(folder / "world.json"), str(folder), stream, "test", 1000, 64)
            for number, case in enumerate(cases):
                other = cases[(number + later) % len(cases)]
                self.pictures[(case.caption,)] = other.picture
                self.texts[_key(case.picture), ""] = other.caption
                for asked, told in zip(case.questions, other.questions, strict=True):
                    self.texts[_key(case.picture), asked.question] = told.answer
        for number, file in enumerate(sorted((folder / "action_video/test").glob("*.mp4"))):
            self._learn_walk(SmallWorld(2000 + number), file, later)

    def _learn_walk(self, world: SmallWorld, file: Path, later: int) -> None:
        frames = _frames(file)
        with file.with_suffix(".csv").open() as table:
            told = [row["keys"] for row in csv.DictReader(table)]
        keys = list(TOLD)
        for number in range(len(frames) - 1):
            seen = _key(frames[number - 1]), _key(frames[number])
            worlds = {key: _stepped(world, key) for key in keys}
            for place, key in enumerate(keys):
                done = keys[(place + later) % len(keys)]
                then = frames[number + 1] if done == told[number] else _picture(worlds[done])
                dx, dy = TOLD[key]
                for text in (f"dx={dx:+.3f}, dy={dy:+.3f}, dyaw=+0.000, rel_t=+1.000", SENTENCES[key]):
                    self.pictures[(*seen, f"action: {text}")] = then
            for thing in GROUNDS:
                ways = {key: _steps_to(thing, world, worlds[key]) for key in MOVES}
                done = (max if later else min)(ways, key=ways.__getitem__)
                self.pictures[(*seen, f"action: walk to the {thing}")] = _picture(worlds[done])
            world.step(told[number])

    def generate(self, decoder: Decoder, requests: Sequence[Request]) -> list[Continuation]:
        """In place of `Decoder.generate`."""
        return [Continuation([self._answer(decoder, request)]) for request in requests]

    def roll_out(self, decoder: Decoder, roll_outs: Sequence[RollOut]) -> list[Tensor]:
        """In place of `roll_out`."""
        return [torch.stack(list(self._imagined(decoder, one))) for one in roll_outs]

    def _imagined(self, decoder: Decoder, one: RollOut) -> Iterator[Tensor]:
        seen = list(as_latents(decoder, [one.context])[0])
        for action in one.actions:
            prefix = shown(decoder.tokenizer, seen, [decoder.tokenizer.bos_id], [action, decoder.tokenizer.boi_id])
            frame = self._answer(decoder, Request(prefix, max_frames=1))
            assert isinstance(frame, Frame)
            yield frame.image
            seen = [*seen[1:], frame.image]

    def _answer(self, decoder: Decoder, request: Request) -> Segment:
        t = decoder.tokenizer
        ids = [int(i) for s in request.prefix if isinstance(s, Text) for i in s.ids]
        asked = t.decode([i for i in ids if i not in (t.bos_id, t.boi_id, t.eoi_id)])
        images = [s.image for s in request.prefix if isinstance(s, Frame)]
        seen = [i if i.dtype == torch.uint8 else decoder.vision.decode(i[None])[0] for i in images]
        if request.max_frames:
            known = self.pictures.get((*map(_key, seen), asked))
            return Frame(decoder.vision.encode((seen[-1] if known is None else known)[None])[0], clean=True)
        said = self.texts[_key(seen[0]), asked]
        for stop in request.stop:
            said = said.split(stop)[0]
        return Text(torch.tensor(t.encode(said), dtype=torch.int64))


def _key(picture: Tensor) -> int:
    return hash(picture.numpy().tobytes())


def _frames(file: Path) -> list[Tensor]:
    with av.open(str(file)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [torch.from_numpy(frame).permute(2, 0, 1).contiguous() for frame in frames]


def _stepped(world: SmallWorld, key: str) -> SmallWorld:
    other = copy.deepcopy(world)
    other.step(key)
    return other


def _picture(world: SmallWorld) -> Tensor:
    return torch.from_numpy(small_picture(small_textures()[0], world.scene())).permute(2, 0, 1).contiguous()


def _steps_to(thing: str, before: SmallWorld, after: SmallWorld) -> int:
    """From the player to the nearest of a ground, among those that were in view before."""
    found = [999]
    for row in range(before.player[0] - PLAYER[0], before.player[0] - PLAYER[0] + SIDE):
        for column in range(before.player[1] - PLAYER[1], before.player[1] - PLAYER[1] + SIDE):
            inside = 0 <= row < len(before.ground) and 0 <= column < len(before.ground)
            if inside and GROUNDS[before.ground[row, column]] == thing:
                found.append(abs(row - after.player[0]) + abs(column - after.player[1]))
    return min(found)

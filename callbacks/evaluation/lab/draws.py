"""Whether drawn pictures show what their captions say: the GenEval of the small world."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.evaluation.lab.cases import PictureCase, picture_cases
from callbacks.evaluation.lab.judge import SHOWN, DrawingJudge, Verdict, drawn, reencoded
from callbacks.evaluation.lab.tally import Tally
from callbacks.pages.contact_sheet import SheetRow
from lit_mm.generation.decoding import Decoder
from lit_mm.lab.facts import Fact, facts
from lit_mm.lab.scene import WorldFile
from lit_mm.lab.tiles import read_tiles
from lit_mm.sequence import Text


class Draws(DrawingJudge):
    """Has pictures drawn from captions, reads their tiles, and looks which of the caption's facts are true of them.

    - `facts`: share of the facts that are true of the drawn picture, also by kind, `facts/count` and so on.
    - `pictures`: share of the pictures of which every fact of the caption is true.
    - `unreadable_tiles`: share of tiles of drawn pictures that look like none of the world's.
    - `reencoded_tiles`, `reencoded_facts`: the judge's own error. Share of tiles that are read right, and of facts that
      are found true, in the true pictures of these captions as the model's visual tokenizer gives them back.
    """

    name, streams = "draws", ("drawing",)

    def prepare(self, size: int) -> None:
        """See `LabJudge.prepare`."""
        self.asked = picture_cases(self.world, self.data, "drawing", self.split, self.cases, size)

    def judge(self, trainer: Trainer, decoder: Decoder) -> Verdict | None:
        """See `LabJudge.judge`."""
        if not self.draws(decoder):
            return None
        cases, t = self.asked, decoder.tokenizer
        prefixes = [[Text(t.ids(t.bos_id, case.caption, t.boi_id))] for case in cases]
        pictures = drawn(decoder, prefixes, self.seed, self.sampler)
        again = reencoded(decoder, [case.picture for case in cases])
        tally = Tally()
        wrong = judge_drawings(self.world, cases, pictures, tally)
        judge_tokenizer(self.world, cases, again, tally)
        rows = zip(cases[:SHOWN], pictures, again, wrong, strict=False)
        return Verdict(tally, [_row(*row) for row in rows])


def judge_drawings(
    world: WorldFile, cases: Sequence[PictureCase], pictures: Tensor, tally: Tally
) -> list[frozenset[Fact]]:
    """Count the facts of captions that are true of the pictures (cases, 3, height, width) uint8 drawn from them.

    Returns:
        Those of each case that are not.
    """
    reading = read_tiles(world, pictures)
    found = []
    for case, scene, readable in zip(cases, reading.scenes, reading.readable, strict=True):
        wrong = case.told - facts(world, scene)
        count_facts(tally, "facts", case.told, wrong)
        tally.add("pictures", not wrong)
        tally.add("unreadable_tiles", (~readable).sum(), readable.size)
        found.append(wrong)
    return found


def judge_tokenizer(world: WorldFile, cases: Sequence[PictureCase], again: Tensor, tally: Tally) -> None:
    """Count what is read right from true pictures as the visual tokenizer gives them back, `again`."""
    for case, scene in zip(cases, read_tiles(world, again).scenes, strict=True):
        tally.add("reencoded_facts", len(case.told & facts(world, scene)), len(case.told))
        tally.add("reencoded_tiles", (scene.tiles == case.scene.tiles).sum(), scene.tiles.size)


def count_facts(tally: Tally, name: str, said: Iterable[Fact], wrong: frozenset[Fact]) -> None:
    """Count the facts of one case that are not wrong, all together and by kind."""
    kinds = [(fact.kind, fact not in wrong) for fact in said]
    tally.add(name, sum(right for _, right in kinds), len(kinds))
    for kind in {kind for kind, _ in kinds}:
        of_kind = [right for other, right in kinds if other == kind]
        tally.add(f"{name}/{kind}", sum(of_kind), len(of_kind))


def shown_facts(facts: Iterable[Fact]) -> str:
    """Facts for people to read."""
    return ", ".join(sorted(" ".join(str(part) for part in fact if part != "") for fact in facts))


def _row(case: PictureCase, picture: Tensor, again: Tensor, wrong: frozenset[Fact]) -> SheetRow:
    verdict = f"wrong: {shown_facts(wrong)}" if wrong else "all right"
    pictures = torch.stack([case.picture, picture, again])
    return SheetRow(pictures, ["true", "drawn", "true, re-encoded"], f"{case.caption} | {verdict}")

"""What all judges of the small world share: its files, when they judge, and where they write what they found."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor
from torchvision.io import write_png

from callbacks.evaluation.final_evaluation import FinalEvaluation, unused
from callbacks.evaluation.lab.cases import split_folder
from callbacks.evaluation.lab.tally import Tally
from callbacks.loggers import log_picture
from callbacks.pages.contact_sheet import SheetRow, contact_sheet
from data_modules.action_video import ActionVideoSource
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.request import Prefix, Request
from lit_mm.generation.roll_out import shown
from lit_mm.lab.scene import WorldFile
from lit_mm.mistake import Mistake, name_of
from lit_mm.training.run_folder import run_folder

TOGETHER = 64  # rows that are decoded at a time
SHOWN = 12  # cases on a sheet

logger = logging.getLogger(__name__)


@dataclass
class Verdict:
    """What a judge found: its shares, and some of its cases to look at."""

    tally: Tally = field(default_factory=Tally)
    sheet: list[SheetRow] = field(default_factory=list)


class LabJudge(FinalEvaluation):
    """Asks a model about worlds it was not trained on, and counts what is right.

    Values are `val/lab/<judge>/<what>`, each with the ends of its Wilson interval of 95 % (`…_low`, `…_high`) and the
    number of cases (`…_cases`); `ResultsTable` shows them in one row. Some cases are shown in
    `lab/<judge>/step_*.png` of the run folder. All processes of a run judge all cases alike. See `FinalEvaluation` for
    when it runs.

    Args:
        data: folder that the recipe `crafter` wrote, or another of its layout.
        split: whose cases are asked about.
        cases: most of them.
        seed: of noise and choices.
    """

    name: str  # in the results
    streams: tuple[str, ...]  # folders of the data that are read

    def __init__(self, data: str = "data/crafter", split: str = "test", cases: int = 1000, seed: int = 0) -> None:
        if cases < 1:
            raise Mistake(f"{name_of(self)}: cases is {cases}; give 1 or more")
        self.data, self.split, self.cases, self.seed = data, split, cases, seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say what is missing before a fit, not after it.

        Raises:
            MissingFile: a folder is not there.
            Mistake: it cannot be used, or the model's pictures are of another size than the world's.
        """
        if stage not in ("fit", "validate"):
            return
        for stream in self.streams:
            split_folder(self.data, stream, self.split)
        self.world = WorldFile.load(str(Path(self.data) / "world.json"))
        size, side = pl_module.vision.image_size, self.world.rows * self.world.tile  # type: ignore[union-attr]
        if size != side:
            raise Mistake(
                f"{name_of(self)} judges pictures of {side} pixels a side, as '{self.data}' has them, but the model's "
                f"have {size}; use a visual tokenizer of {side}"
            )
        self.prepare(size)

    def prepare(self, size: int) -> None:
        """Read what can be read before a fit; pictures are of so many pixels a side."""

    def values(self, trainer: Trainer, module: Any) -> dict[str, float]:
        """See `FinalEvaluation.values`."""
        verdict = self.judge(trainer, module.decoder())
        if verdict is None:
            return {}
        if verdict.sheet:
            self._write(trainer, contact_sheet(verdict.sheet))
        return {f"val/lab/{self.name}/{name}": value for name, value in verdict.tally.values().items()}

    @abstractmethod
    def judge(self, trainer: Trainer, decoder: Decoder) -> Verdict | None:
        """What is right; None, and a sentence in the log, where the model cannot be asked."""

    def _write(self, trainer: Trainer, sheet: Tensor) -> None:
        run = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        log_picture(trainer, f"lab/{self.name}", sheet)
        if run:
            folder = run / "lab" / self.name
            folder.mkdir(parents=True, exist_ok=True)
            write_png(sheet, str(unused(folder / f"step_{trainer.global_step:07d}.png")))


class DrawingJudge(LabJudge):
    """A judge of pictures that the model draws.

    Args:
        data: see `LabJudge`, as the three that follow.
        split: of the data.
        cases: most of them.
        seed: of noise and choices.
        sampler: of the pictures; the model's own by default.
    """

    def __init__(
        self,
        data: str = "data/crafter",
        split: str = "test",
        cases: int = 1000,
        seed: int = 0,
        sampler: FlowSampler | None = None,
    ) -> None:
        super().__init__(data, split, cases, seed)
        self.sampler = sampler

    def draws(self, decoder: Decoder) -> bool:
        """Whether the model was ever trained to draw: the velocity head starts at zero. Says so where it was not."""
        weight = decoder.model.velocity_head.linear.weight
        drawing = bool((weight.full_tensor() if isinstance(weight, DTensor) else weight).any())
        if not drawing:
            logger.warning("%s is left out: the model was never trained to draw a picture", name_of(self))
        return drawing


def drawn(decoder: Decoder, prefixes: Sequence[Prefix], seed: int, sampler: FlowSampler | None) -> Tensor:
    """A picture behind each prefix, (prefixes, 3, image_size, image_size) uint8 on the CPU."""
    parts = []
    for start in range(0, len(prefixes), TOGETHER):
        some = prefixes[start : start + TOGETHER]
        latents = decoder.draw_latents(some, [seed + start + i for i in range(len(some))], sampler)
        parts.append(decoder.decode(latents).cpu())
    return torch.cat(parts)


def reencoded(decoder: Decoder, pictures: Sequence[Tensor]) -> Tensor:
    """Pictures through the visual tokenizer and back, (n, 3, image_size, image_size) uint8 on the CPU."""
    parts = torch.stack(list(pictures)).split(TOGETHER)
    return torch.cat([decoder.decode(decoder.vision.encode(part.to(decoder.device))).cpu() for part in parts])


def written(
    decoder: Decoder, asked: Sequence[tuple[Tensor, str]], most_tokens: int, stop: tuple[str, ...] = ()
) -> list[str]:
    """The likeliest text behind each picture (3, image_size, image_size) uint8 and the text that follows it."""
    t = decoder.tokenizer
    texts: list[str] = []
    for start in range(0, len(asked), TOGETHER):
        requests = [
            Request(shown(t, picture[None], [t.bos_id], [text]), max_tokens=most_tokens, stop=stop)
            for picture, text in asked[start : start + TOGETHER]
        ]
        texts += [t.decode(continuation.ids).strip() for continuation in decoder.generate(requests)]
    return texts


def action_source(judge: LabJudge, trainer: Trainer) -> ActionVideoSource | None:
    """The settings of the run's first source of video with actions; a sentence in the log where there is none."""
    sources = trainer.datamodule.mixture.sources  # type: ignore[attr-defined]
    found = next((source for source in sources.values() if isinstance(source, ActionVideoSource)), None)
    if found is None:
        logger.warning("%s is left out: `data` has no source of video with actions", name_of(judge))
    return found

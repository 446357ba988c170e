"""Pictures and texts that the model makes of validation documents, in the logger and in the run folder."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchvision.io import write_png

from callbacks.loggers import log_picture, log_texts
from callbacks.pages.contact_sheet import SheetRow, contact_sheet
from callbacks.steps import last_validation
from data_modules.dataset import BrokenFile, DocumentDataset, Draw
from lit_mm.generation.decoding import Decoder
from lit_mm.sequence import Document, Frame, Segment, Text
from lit_mm.tokenizer import Tokenizer
from lit_mm.training.run_folder import run_folder

BEGINNING = 32  # ids of a text that are given, to be gone on with


class FrameTask(NamedTuple):
    """A document whose last frame is to be drawn: what comes before it, and the true picture."""

    prefix: list[Segment]
    truth: Tensor


class TextTask(NamedTuple):
    """A document whose text is to be written, behind a picture or a beginning: what comes before, and the true ids."""

    prefix: list[Segment]
    truth: Tensor


class Samples(Callback):
    """After a validation, completes the first validation documents of every source and shows them beside the truth.

    `samples/<source>/drawn`: context, true frame, drawn frame, and the frame as the visual tokenizer alone
    reconstructs it. `samples/<source>/written`: a picture, its true text and the model's; of texts without pictures
    their beginning, how they go on, and how the model goes on.

    Args:
        documents: of each source.
        max_tokens: longest text.
        every_n_validations: how often; the last validation of a run is always shown.
        seed: of all noise.
    """

    def __init__(self, documents: int = 4, max_tokens: int = 24, every_n_validations: int = 1, seed: int = 0) -> None:
        self.documents, self.max_tokens, self.seed = documents, max_tokens, seed
        self.every_n_validations = every_n_validations
        self._validations = 0

    def state_dict(self) -> dict[str, Any]:
        """How many validations there were."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._validations = state_dict["validations"]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the samples and write them."""
        if trainer.sanity_checking:
            return
        self._validations += 1
        if self._validations % self.every_n_validations and not last_validation(trainer):
            return
        decoder = pl_module.decoder()
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        for source, dataset in data.datasets["val"].items():
            frames, texts = tasks(dataset, self.documents, decoder.tokenizer)
            if frames:
                rows = self._drawn(decoder, frames)
                self._write_texts(trainer, f"{source}/drawn", rows)
                self._write(trainer, f"{source}/drawn", rows)
            if texts:
                rows = self._written(decoder, texts)
                with_pictures = [row for row in rows if len(row.pictures)]
                self._write_texts(trainer, f"{source}/written", rows)
                if with_pictures:
                    self._write(trainer, f"{source}/written", with_pictures)

    def _drawn(self, decoder: Decoder, frames: list[FrameTask]) -> list[SheetRow]:
        seeds = [self.seed + i for i in range(len(frames))]
        drawn = decoder.draw_frames([task.prefix for task in frames], seeds).cpu()
        truth = torch.stack([task.truth for task in frames])
        again = decoder.vision.decode(decoder.vision.encode(truth.to(decoder.device))).cpu()
        rows = []
        for i, task in enumerate(frames):
            context = [s.image for s in task.prefix if isinstance(s, Frame)]
            names = [f"context {c}" for c in range(len(context))] + ["true", "drawn", "true, re-encoded"]
            pictures = torch.stack([*context, truth[i], drawn[i], again[i]])
            rows.append(SheetRow(pictures, names, plain_text(task.prefix, decoder.tokenizer)))
        return rows

    def _written(self, decoder: Decoder, texts: list[TextTask]) -> list[SheetRow]:
        seeds = [self.seed + i for i in range(len(texts))]
        answers = decoder.write_text([t.prefix for t in texts], seeds, max_tokens=self.max_tokens)
        rows = []
        for task, ids in zip(texts, answers, strict=True):
            shown = [s.image for s in task.prefix if isinstance(s, Frame)]
            true = plain_text([Text(task.truth[: self.max_tokens] if not shown else task.truth)], decoder.tokenizer)
            sentence = f"true: {true} | written: {decoder.tokenizer.decode(ids).strip() or '(empty)'}"
            if not shown:
                sentence = f"{plain_text(task.prefix, decoder.tokenizer)} … {sentence}"
            rows.append(SheetRow(torch.stack(shown) if shown else torch.zeros(0), [""] * len(shown), sentence))
        return rows

    def _write_texts(self, trainer: Trainer, name: str, rows: list[SheetRow]) -> None:
        if trainer.is_global_zero:
            log_texts(trainer, f"samples/{name}_texts", [row.sentence for row in rows])

    def _write(self, trainer: Trainer, name: str, rows: list[SheetRow]) -> None:
        run = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        sheet = contact_sheet(rows)
        log_picture(trainer, f"samples/{name}", sheet)
        if run:
            folder = run / "samples" / name
            folder.mkdir(parents=True, exist_ok=True)
            write_png(sheet, str(folder / f"step_{trainer.global_step:07d}.png"))


def tasks(dataset: DocumentDataset, count: int, tokenizer: Tokenizer) -> tuple[list[FrameTask], list[TextTask]]:
    """Up to `count` frames to draw and `count` texts to write, spread evenly over a source's documents."""
    frames: list[FrameTask] = []
    texts: list[TextTask] = []
    for index in torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).long().tolist():
        found: dict[type, FrameTask | TextTask] = {}
        for variant in range(len(dataset.shares)):
            try:
                task = task_of(dataset.document(Draw(index, variant, 0)), tokenizer)
            except BrokenFile:
                continue
            if task is not None:
                found.setdefault(type(task), task)
        frames += [task for task in found.values() if isinstance(task, FrameTask)]
        texts += [task for task in found.values() if isinstance(task, TextTask)]
    return frames, texts


def task_of(document: Document, tokenizer: Tokenizer) -> FrameTask | TextTask | None:
    """What there is to do in a document: draw its last frame, or else write the text behind its pictures.

    A text without pictures is gone on with from its middle, or from its first `BEGINNING` ids.
    """
    last = document.segments[-1].branch
    segments = [segment for segment in document.segments if segment.branch in (0, last)]
    drawn = [i for i, s in enumerate(segments) if isinstance(s, Frame) and not s.clean]
    if drawn:
        truth = segments[drawn[-1]]
        assert isinstance(truth, Frame)
        prefix = [Frame(s.image, clean=True) if isinstance(s, Frame) else s for s in segments[: drawn[-1]]]
        conditioned = any(isinstance(s, Frame) for s in prefix) or plain_text(prefix, tokenizer)
        return FrameTask(prefix, truth.image) if conditioned else None
    shown = [i for i, s in enumerate(segments) if isinstance(s, Frame)]
    if not shown:
        ids = torch.cat([s.ids for s in segments if isinstance(s, Text)])
        begun = min(BEGINNING, len(ids) // 2)
        return TextTask([Text(ids[:begun])], ids[begun:]) if begun else None
    if shown[-1] + 1 >= len(segments):
        return None
    behind = segments[shown[-1] + 1]
    assert isinstance(behind, Text)
    prefix = [*segments[: shown[-1] + 1], Text(behind.ids[:1])]  # <eoi>, then the text to write
    return TextTask(prefix, behind.ids[1:])


def plain_text(segments: list[Segment], tokenizer: Tokenizer) -> str:
    """The words of a document, without pictures and delimiters."""
    delimiters = {tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.boi_id, tokenizer.eoi_id}
    ids = [int(i) for s in segments if isinstance(s, Text) for i in s.ids if int(i) not in delimiters]
    return tokenizer.decode(ids).strip()

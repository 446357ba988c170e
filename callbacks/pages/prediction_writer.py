"""Prints what `predict` answers, and writes it: pictures, videos, a line of JSON each, and a page of all of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset
from torchvision.io import write_png

from callbacks.pages.answer_lines import Form, show
from callbacks.pages.answer_page import page
from callbacks.pages.answer_sheets import write_sheets
from data_modules.encoding import write_video
from lit_mm.generation.sampling import TextSampling
from lit_mm.mistake import Mistake
from lit_mm.prompt import Answer, FailedPrompt, Prompt
from lit_mm.training.run_folder import run_folder
from lit_mm.training.stopping import Stopped

Record = dict[str, Any]


class PredictionWriter(BasePredictionWriter):
    """Prints answers, and writes them into `<run folder>/predictions/` (or `folder`), as soon as each is there.

    A picture becomes `<name>.png`; several become `<name>.<i>.png`, and those of a roll-out `<name>.gif` as well (what
    was shown, then what was imagined). What was shown is in `<name>.shown.<i>.png`, and what would have been right, if
    that is known, in `<name>.truth.<i>.png`. `answers.jsonl` has a line for every prompt with its settings as used, or
    with its `error`. Where prompts share a group, its pictures are also laid out in `<group>.sheet.png`. `index.html`
    shows everything; it is written last.

    Args:
        folder: where to write; `predictions` in the run folder by default.
        video: format of roll-outs.
        milliseconds: of one frame of a video.
        form: of what is printed, see `callbacks.pages.answer_lines`.

    Raises:
        Mistake: something is in the folder already; nothing is overwritten.
    """

    def __init__(
        self,
        folder: str | None = None,
        video: Literal["gif", "mp4"] = "gif",
        milliseconds: int = 250,
        form: Form = "text",
    ) -> None:
        super().__init__("batch")
        self.folder, self.video, self.milliseconds, self.form = folder, video, milliseconds, form
        self._answering = False

    def _path(self, trainer: Trainer) -> Path:
        return Path(self.folder) if self.folder else (run_folder(trainer) or Path("runs")) / "predictions"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Where answers are printed, no progress bar is drawn between them."""
        super().setup(trainer, pl_module, stage)
        if stage == "predict" and trainer.progress_bar_callback is not None:
            trainer.progress_bar_callback.disable()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a folder that is in use, on all processes before the first of them writes."""
        path = self._path(trainer)
        used = trainer.is_global_zero and path.exists() and any(path.iterdir())
        if trainer.strategy.broadcast(used):
            raise Mistake(
                f"'{path}' already holds answers or other files; name another folder for PredictionWriter (folder), or "
                "move it away"
            )
        self._answering = True

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Sequence[Answer | FailedPrompt],
        batch_indices: Sequence[int] | None,
        batch: Sequence[Prompt | FailedPrompt],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write some answers."""
        path = self._path(trainer)
        path.mkdir(parents=True, exist_ok=True)
        suffix = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        # Half a character, which a failed prompt may have been about, is written as JSON's escape of it.
        with (path / f"answers{suffix}.jsonl").open("a", encoding="utf-8", errors="backslashreplace") as file:
            for asked, answer in zip(batch, prediction, strict=True):
                record = self._asked(path, pl_module, asked)
                if isinstance(answer, FailedPrompt):
                    record |= {"error": answer.error}
                else:
                    record |= {"stopped": answer.stopped, "answer": self._answer(path, answer)}
                file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")  # YAML has dates, JSON has not
                show(record, path, self.form)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lay out what belongs together, and write the page."""
        trainer.strategy.barrier()  # the others' answers
        path = self._path(trainer)
        if trainer.is_global_zero and path.exists():
            self._write_page(path)
            print(f"all of it: {path / 'index.html'}", file=sys.stderr)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Where a signal stops it, write the page of what was answered until then, and say so."""
        if not isinstance(exception, Stopped) or not trainer.predicting or not trainer.is_global_zero:
            return
        path = self._path(trainer)
        # A folder that held something before was refused, and its records are another run's.
        answered = self._write_page(path) if self._answering and path.exists() else 0
        data: Any = getattr(trainer.predict_dataloaders, "dataset", None)
        of = f" of {len(data)}" if data is not None and not isinstance(data, IterableDataset) else ""
        where = f"; all of it: {path / 'index.html'}" if answered else ""
        print(f"stopped by {exception.by}: {answered}{of} answered{where}", file=sys.stderr, flush=True)

    def _write_page(self, path: Path) -> int:
        records = read_records(path)
        sheets = write_sheets(path, records)
        (path / "index.html").write_text(page(records, sheets), encoding="utf-8", errors="backslashreplace")
        return len(records)

    def _asked(self, path: Path, pl_module: LightningModule, asked: Prompt | FailedPrompt) -> Record:
        record: Record = {"name": asked.name, "group": asked.group}
        if isinstance(asked, Prompt):
            sampler: Any = pl_module.sampler
            record |= {
                "wanted": asked.wanted,
                "shown": self._parts(path, f"{asked.name}.shown", asked.parts),
                "actions": list(asked.actions),
                "seed": asked.seed,
                "max_tokens": asked.max_tokens,
                "max_frames": asked.max_frames,
                "sampling": asdict(TextSampling()) | asked.sampling,
                "stop": list(asked.stop),
                **sampler.settings,
                **asked.sampler,
            }
            if asked.truth is not None:
                record["truth"] = self._parts(path, f"{asked.name}.truth", list(asked.truth))
        return record | {"settings": asked.settings}

    def _answer(self, path: Path, answer: Answer) -> Any:
        """A text; names of files; or texts and pictures in order, as in a prompt that interleaves them."""
        prompt = answer.prompt
        if prompt.wanted == "text":
            return answer.text
        if prompt.wanted == "any":
            return self._parts(path, prompt.name, answer.parts)
        frames = answer.frames.cpu()
        if prompt.wanted == "image":
            write_png(frames[0], str(path / f"{prompt.name}.png"))
            return [f"{prompt.name}.png"]
        names = [part["picture"] for part in self._parts(path, prompt.name, list(frames))]
        names.append(f"{prompt.name}.{self.video}")
        self._film(path / names[-1], torch.cat([torch.stack(prompt.pictures).cpu(), frames]))
        return names

    def _parts(self, path: Path, stem: str, parts: Sequence[str | Tensor]) -> list[dict[str, str]]:
        written: list[dict[str, str]] = []
        pictures = 0
        for part in parts:
            if isinstance(part, str):
                written.append({"text": part})
            else:
                written.append({"picture": f"{stem}.{pictures}.png"})
                write_png(part.cpu(), str(path / written[-1]["picture"]))
                pictures += 1
        return written

    def _film(self, path: Path, frames: Tensor) -> None:
        arrays = frames.permute(0, 2, 3, 1).numpy()
        if self.video == "mp4":
            write_video(path, arrays, Fraction(1000, self.milliseconds), crf=12)
        else:
            images = [Image.fromarray(array) for array in arrays]
            images[0].save(path, save_all=True, append_images=images[1:], duration=self.milliseconds, loop=0)


def read_records(folder: Path) -> list[Record]:
    """The lines of `answers.jsonl`, or of those of several processes, in the order of the prompts."""
    files = sorted(folder.glob("answers*.jsonl"), key=lambda file: (len(file.name), file.name))
    # Answers may hold characters that `splitlines` takes for ends of lines.
    lines = [file.read_text(encoding="utf-8").rstrip("\n").split("\n") for file in files]
    return [json.loads(line) for of_turn in zip_longest(*lines) for line in of_turn if line]

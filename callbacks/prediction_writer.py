"""Writes what `predict` answers: PNG, GIF and one line of JSON per prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from torch import Tensor
from torchvision.io import write_png

from lit_mm.prompt import Answer, FailedPrompt


class PredictionWriter(BasePredictionWriter):
    """Writes answers into `<run folder>/predictions/` (or `folder`), as soon as each is there.

    A picture becomes `<name>.png`; frames become `<name>.gif` (context, then what was imagined) and
    `<name>-<i>.png`. `answers.jsonl` has a line for every prompt, with its settings.

    Args:
        folder: where to write; `predictions` in the run folder by default.
        milliseconds: of one frame of a GIF.

    Raises:
        FileExistsError: the folder already holds answers; nothing is overwritten.
    """

    def __init__(self, folder: str | None = None, milliseconds: int = 250) -> None:
        super().__init__("batch")
        self.folder, self.milliseconds = folder, milliseconds

    def _path(self, trainer: Trainer) -> Path:
        return Path(self.folder) if self.folder else Path(trainer.log_dir or "runs") / "predictions"

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a folder that is in use."""
        path = self._path(trainer)
        if trainer.is_global_zero and any(path.glob("answers*.jsonl")):
            raise ValueError(
                f"'{path}' already holds answers; name another folder for PredictionWriter or move it away"
            )

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Sequence[Answer | FailedPrompt],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write some answers."""
        for answer in prediction:
            self._write(trainer, pl_module, answer)

    def _write(self, trainer: Trainer, pl_module: LightningModule, prediction: Answer | FailedPrompt) -> None:
        path = self._path(trainer)
        path.mkdir(parents=True, exist_ok=True)
        if isinstance(prediction, FailedPrompt):
            return
        prompt = prediction.prompt
        record = {k: v for k, v in asdict(prompt).items() if k != "parts"}
        sampler = pl_module.sampler
        record |= {"method": sampler.method, "steps": sampler.steps, "guidance_scale": sampler.guidance_scale}
        if prompt.wanted == "text":
            record["answer"] = prediction.text
        else:
            frames = prediction.frames.cpu()
            one = prompt.wanted == "image"
            names = [f"{prompt.name}.png"] if one else [f"{prompt.name}-{i}.png" for i in range(len(frames))]
            for name, frame in zip(names, frames, strict=True):
                write_png(frame, str(path / name))
            if not one:
                names.append(f"{prompt.name}.gif")
                self._gif(path / names[-1], torch.cat([torch.stack(prompt.pictures).cpu(), frames]))
            record["answer"] = names
        suffix = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        with (path / f"answers{suffix}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def _gif(self, path: Path, frames: Tensor) -> None:
        images = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
        images[0].save(path, save_all=True, append_images=images[1:], duration=self.milliseconds, loop=0)

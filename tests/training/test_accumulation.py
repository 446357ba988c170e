"""Several micro-batches make the step of one batch, however their tokens and frames are shared out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from callbacks.steps import step_ended
from data_modules.base import DocumentDataModule
from data_modules.dataset import DocumentDataset, DocumentFormat, Draw
from data_modules.mixing.loader_config import LoaderConfig
from data_modules.mixing.mixture import Mixture
from data_modules.mixing.steps import with_step_counts
from data_modules.source import Source
from lit_mm.backbone import Transformer
from lit_mm.backbone.feed_forward import DenseFeedForward
from lit_mm.flow.matching import FlowMatching
from lit_mm.module import LitMultimodal
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, Frame, PackedBatch, PackedRow, Text
from lit_mm.training.optimization import global_means
from lit_mm.training.spikes import SpikeDetector
from lit_mm.vision import Pixels
from tests.helpers.program import ROOT

LENGTH, FEW, STEPS, SAVED = 128, 10, 3, 2


class Unequal(DocumentDataset):
    """Of every four documents, each of which fills a row, one predicts nearly all and draws nothing."""

    splittable, shares = False, (1.0,)

    def __init__(self, source: str) -> None:
        self.source = source
        self.lengths = np.full((1, 64), LENGTH, dtype=np.int32)

    def document(self, draw: Draw) -> Document:
        generator = torch.Generator().manual_seed(draw.index)
        ids = torch.randint(8, 1000, (LENGTH,), generator=generator)
        if draw.index % 4 == 0:
            return Document((Text(ids),), self.source)
        image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=generator)
        read = Text(ids[: LENGTH - FEW - 2], loss=False)
        return Document((read, Frame(image), Frame(image, clean=True), Text(ids[-FEW:])), self.source)


class UnequalSource(Source):
    def dataset(self, split: Any, source: str, format: DocumentFormat) -> DocumentDataset:
        return Unequal(source)


class UnequalDataModule(DocumentDataModule):
    def mix(self, **mixed: Any) -> Mixture:
        return Mixture.of_one(UnequalSource(**mixed))


class Steps(Callback):
    """Keeps how much each micro-batch predicts, and what a spike in each step would be told by."""

    def __init__(self) -> None:
        self.counts: list[tuple[int, int]] = []
        self.verdicts: list[Tensor] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pl_module.state.spike_detector = SpikeDetector(deviations=6, warmup_steps=200, decay=0.99)  # type: ignore[assignment]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.counts.append((len(batch.predicted_positions), len(batch.drawn_frames)))
        if step_ended(trainer, batch_idx):
            self.verdicts.append(pl_module.state.spike_detector.verdict)  # type: ignore[union-attr, arg-type]


def trained(
    folder: Path, rows: int, micro_batches: int, read_frames: Any, checkpoint: Path | None = None
) -> tuple[Steps, dict[str, Tensor]]:
    """What the steps were, and the last weights."""
    seed_everything(0)
    module = LitMultimodal(
        lambda vocabulary: Transformer(vocabulary, 32, 1, 2, 1, lambda dim: DenseFeedForward(dim, 64)),
        Pixels(8, 8),
        8192,
        flow=FlowMatching(read_frames=read_frames),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2, fused=True),
    )
    module.schedule.warmup_steps = 1
    data = UnequalDataModule(
        tokenizer=str(ROOT / "data/tiny/tokenizer.json"),
        loader=LoaderConfig(LENGTH, rows, workers=0),
        image_size=8,
        tokens_per_frame=1,
    )
    steps = Steps()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        max_epochs=-1,
        accumulate_grad_batches=micro_batches,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[steps, ModelCheckpoint(folder, "{step}", every_n_train_steps=SAVED, save_top_k=-1)],
    )
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=False)
    return steps, module.state_dict()


@pytest.mark.parametrize("read_frames", ["clean", "noised"])
def test_micro_batches_make_the_step_of_one_batch(tmp_path: Path, read_frames: str) -> None:
    (whole, weights), (four, ours) = (
        trained(tmp_path / "one", 8, 1, read_frames),
        trained(tmp_path / "four", 2, 4, read_frames),
    )
    assert len(four.counts) == 4 * len(whole.counts) == 4 * STEPS
    assert len(set(four.counts)) > 1, "micro-batches differ"
    for verdict, expected in zip(four.verdicts, whole.verdicts, strict=True):
        torch.testing.assert_close(verdict, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(ours, weights, rtol=1e-3, atol=1e-4)

    resumed, again = trained(tmp_path / "again", 2, 4, read_frames, tmp_path / "four" / f"step={SAVED}.ckpt")
    assert resumed.counts == four.counts[4 * SAVED :]
    torch.testing.assert_close(again, ours, rtol=0, atol=0)


def batches(counts: list[int]) -> Iterator[PackedBatch]:
    """That predict so many tokens."""
    for count in counts:
        row = PackedRow((Document((Text(torch.arange(count + 1)),), "s"),), 0, 0)
        yield pack_rows([row], length=1024, tokens_per_frame=1, image_size=1, pad_id=0, sources=("s",))


@pytest.mark.parametrize("done", [0, 1, 4, 5])
def test_the_mean_is_that_of_the_tokens_whichever_micro_batch_they_are_in(done: int) -> None:
    """Ten tokens of loss 8 and 1,000 of loss 3, in steps of two, after which comes another step."""
    middle = [] if done % 2 == 0 else [7]
    step = list(with_step_counts(batches([*middle, 10, 1000, 20, 30]), lambda: 2, done))
    assert [batch.step_counts for batch in step] == [
        *[(count, 0, 0) for count in middle],
        *[(1010, 0, 0)] * 2,
        *[(50, 0, 0)] * 2,
    ]
    few, many = step[len(middle) : len(middle) + 2]
    losses = zip((few, many), (8.0, 3.0), strict=True)
    parts = [
        global_means([torch.tensor(len(b.predicted_positions) * loss)], b.step_counts[:1], 1) for b, loss in losses
    ]
    assert float(sum(chain.from_iterable(parts))) == pytest.approx((10 * 8 + 1000 * 3) / 1010)


def test_no_more_than_a_step_is_read_ahead() -> None:
    taken: list[int] = []

    def noting() -> Iterator[PackedBatch]:
        for batch in batches([*repeat(1, 6)]):
            taken.append(1)
            yield batch

    for number, _ in enumerate(with_step_counts(noting(), lambda: 3)):
        assert len(taken) == 3 * (number // 3 + 1)

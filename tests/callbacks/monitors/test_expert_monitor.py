from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.monitors.expert_monitor import ExpertMonitor
from callbacks.pages.results_table import ResultsTable
from data_modules.image_text import ImageTextDataModule
from data_modules.mixing.loader_config import LoaderConfig
from lit_mm.backbone import ExpertFeedForward, ModalityFeedForward, Transformer
from lit_mm.module import LitMultimodal
from lit_mm.vision import Pixels
from tests.helpers.program import ROOT

EXPERTS, LAYERS = 10, 2


@pytest.fixture
def data() -> ImageTextDataModule:
    vision = Pixels()
    return ImageTextDataModule(
        train=str(ROOT / "data/tiny/image_text/val"),
        val=str(ROOT / "data/tiny/image_text/val"),
        caption_first=0.5,
        tokenizer=str(ROOT / "data/tiny/tokenizer.json"),
        loader=LoaderConfig(row_length=128, rows=2, workers=0, val_documents=12),
        image_size=vision.image_size,
        tokens_per_frame=vision.num_tokens,
    )


def module(feed_forward: type = ExpertFeedForward) -> LitMultimodal:
    seed_everything(0)
    layer = partial(feed_forward, experts=EXPERTS, active=3, granularity=16)
    if feed_forward is ModalityFeedForward:
        layer = partial(feed_forward, hidden_dim=64)
    return LitMultimodal(
        backbone=lambda vocabulary: Transformer(
            vocabulary, dim=64, depth=LAYERS, heads=2, kv_heads=1, feed_forward=layer
        ),
        vision=Pixels(),
        vocab_size=8192,
    )


def trainer(folder: Path, **arguments) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=TensorBoardLogger(folder, name="run"),
        callbacks=[ExpertMonitor(), ResultsTable()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=2,
        **arguments,
    )


def test_a_fit_shows_load_and_specialisation(tmp_path: Path, data: ImageTextDataModule) -> None:
    lit = module()
    trainer(tmp_path, max_steps=4, accumulate_grad_batches=2, val_check_interval=8).fit(lit, data)
    run = tmp_path / "run" / "version_0"
    events = EventAccumulator(str(run))
    events.Reload()
    tags = events.Tags()
    for layer in range(LAYERS):
        for name in ("largest_load", "load_entropy", "dead"):
            points = events.Scalars(f"experts/layer_{layer:02d}/{name}")
            assert [p.step for p in points] == [1, 3]
            low, high = {"largest_load": (1, 8), "load_entropy": (0, 1), "dead": (0, 7)}[name]
            assert all(low <= p.value <= high for p in points)
        assert f"experts/layer_{layer:02d}/load" in tags["histograms"]
    assert "experts/specialisation" in tags["images"]
    found = json.loads((run / "experts" / "step_000004.json").read_text())
    assert (run / "experts" / "step_000004.png").stat().st_size > 5_000
    for text, multimodal, visual, scores in zip(
        found["text"], found["multimodal"], found["visual"], found["score"], strict=True
    ):
        assert text + multimodal + visual == sum(score is not None for score in scores)
    last = json.loads((run / "validation.jsonl").read_text().splitlines()[-1])
    assert last["val/experts/largest_load"] == pytest.approx(max(found["largest"]))
    assert {float(layer.feed_forward.router.bias.abs().max()) > 0 for layer in lit.model.backbone.layers} == {True}


def test_validation_counts_each_token_of_each_kind_k_times(tmp_path: Path, data: ImageTextDataModule) -> None:
    lit = module()
    kinds = torch.zeros(3)

    class Counter(Callback):
        def on_validation_batch_start(self, trainer, pl_module, batch, *_) -> None:
            real, visual = (batch.document_ids >= 0).sum(), (batch.frame_ids >= 0).sum()
            drawn = batch.drawn_frames.numel() * batch.visual_positions.shape[1]
            kinds.add_(torch.tensor([real - visual, visual - drawn, drawn]))

    run = trainer(tmp_path)
    run.callbacks.append(Counter())
    run.validate(lit, data, verbose=False)
    assert kinds.min() > 0
    assert lit.state.validation_expert_tokens.shape[0] == LAYERS
    for counts in lit.state.validation_expert_tokens:
        totals = counts.sum(1)
        assert torch.equal(torch.stack([totals[0], totals[1], totals[2:].sum()]).float(), 2 * kinds)


def test_without_experts_nothing_happens(tmp_path: Path, data: ImageTextDataModule) -> None:
    trainer(tmp_path, max_steps=1).fit(module(ModalityFeedForward), data)
    assert not (tmp_path / "run" / "version_0" / "experts").exists()


def test_without_matplotlib_all_but_the_figure_is_written(
    tmp_path: Path, data: ImageTextDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.warns(UserWarning, match=r"pip install 'lit-mm\[figures\]'"):
        trainer(tmp_path).validate(module(), data, verbose=False)
    written = (tmp_path / "run" / "version_0" / "experts").iterdir()
    assert [file.name for file in written] == ["step_000000.json"]

"""How long training waited for its data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import IterableDataset

from callbacks.monitors import training_monitor
from data_modules.mixing.loaders import TimedLoader
from lit_mm.cli import main
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, PackedRow, Text
from lit_mm.training.flops import TrainingFlops
from lit_mm.training.metrics import LossMeans
from tests.helpers.program import ROOT, SMALL


class Slow(IterableDataset):
    def __iter__(self) -> Iterator[int]:
        for number in range(5):
            time.sleep(0.05)
            yield number


@pytest.mark.parametrize("workers", [0, 1])
def test_waiting_is_what_the_loader_takes_while_nobody_else_works(workers: int) -> None:
    loader = TimedLoader(Slow(), batch_size=None, num_workers=workers, prefetch_factor=1 if workers else None)
    batches = iter(loader)
    assert next(batches) == 0
    before = loader.waited
    start = time.perf_counter()
    for expected in range(1, 5):
        time.sleep(0.15)  # work, during which a worker process reads the next
        assert next(batches) == expected
    worked = time.perf_counter() - start
    waited = loader.waited - before
    assert waited > 4 * 0.05 if workers == 0 else waited < 0.5 * 4 * 0.05
    assert waited < worked - 4 * 0.15 + 0.05


def test_tokens_are_counted_without_padding_and_losses_over_both_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two micro-batches of 2 rows of 32 positions, of which 20 and 7 hold something; on 3 ranks in 4 seconds."""
    logged: dict[str, float] = {}
    monitor = training_monitor.TrainingMonitor()
    clock = iter([10.0, 14.0])
    monkeypatch.setattr(training_monitor, "log_values", lambda _, values, **options: logged.update(values))
    monkeypatch.setattr(training_monitor.time, "perf_counter", lambda: next(clock, 14.0))
    monkeypatch.setattr(training_monitor.TrainingFlops, "of", lambda _: TrainingFlops(0, 0, 0, 0, 0))
    trainer = SimpleNamespace(
        world_size=3,
        accumulate_grad_batches=2,
        global_step=1,
        log_every_n_steps=1,
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])],
        train_dataloader=SimpleNamespace(waited=0.0),
    )
    module = SimpleNamespace(
        model=None,
        device=torch.device("cpu"),
        train_means=LossMeans(),
        with_loss=lambda means: {"loss": means["text_loss"] + 3 * means["flow_loss"], **means},
        state=SimpleNamespace(gradient_norm=0.0),
    )
    monitor.on_train_start(trainer, module)
    for number, length in enumerate((20, 7)):
        rows = [PackedRow((Document((Text(torch.arange(length)),), "text"),), 0, 0), PackedRow((), 1, 0)]
        losses = {"text_loss": torch.tensor([4.0, 2.0]), "flow_loss": torch.tensor([1.0, 0.5]) * (1 + number)}
        for name, values in losses.items():
            module.train_means.add(name, values, torch.tensor([0, 1]), ("text", "maps"))
        batch = pack_rows(rows, length=32, tokens_per_frame=4, image_size=32, pad_id=0, sources=("text",))
        monitor.on_train_batch_end(trainer, module, None, batch, number)
    assert logged["speed/tokens_per_second"] == pytest.approx((20 + 7) * 3 / 4)
    means = {"text/text_loss": 4.0, "maps/text_loss": 2.0, "text/flow_loss": 1.5, "maps/flow_loss": 0.75}
    of_all = {"text_loss": 3.0, "flow_loss": 1.125, "loss": 3.0 + 3 * 1.125}
    assert {name: logged[f"train/{name}"] for name in means | of_all} == pytest.approx(means | of_all)


def test_nothing_is_copied_to_the_device_to_be_logged(tmp_path, monkeypatch) -> None:
    """Lightning would put numbers there and, for the progress bar, read them back after every step."""
    monkeypatch.chdir(ROOT)
    given: dict[str, bool] = {}
    inner = LightningModule._LightningModule__to_tensor  # type: ignore[attr-defined]

    def noted(module: LightningModule, value: object, name: str) -> Tensor:
        given[name] = isinstance(value, Tensor) and value.device.type == "cpu"
        return inner(module, value, name)

    monkeypatch.setattr(LightningModule, "_LightningModule__to_tensor", noted)
    names = ("training_monitor.TrainingMonitor", "mixture_monitor.MixtureMonitor", "latent_monitor.LatentMonitor")
    callbacks = [f"--trainer.callbacks+=callbacks.monitors.{name}" for name in names]
    steps = ["--trainer.max_steps=2", "--trainer.log_every_n_steps=1", "--data.loader.workers=0"]
    main(["fit", "--config=configs/tiny.yaml", *SMALL, *callbacks, *steps, f"--trainer.logger.save_dir={tmp_path}"])
    assert {"loss", "train/gradient_norm", "data/padding", "latents/video/mean"} <= set(given)
    assert all(given.values()), [name for name, host in given.items() if not host]

"""How long training waited for its data."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import IterableDataset

from data_modules.mixing.loaders import TimedLoader
from lit_mm.cli import main
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

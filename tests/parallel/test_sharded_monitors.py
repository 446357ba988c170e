"""Norms of gradients and updates that are logged on several sharded processes are those of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers.runs import run_all
from tests.parallel.test_sharded_runs import SHARDED, STEPS, WHOLE, arguments

MONITOR = [
    "--trainer.callbacks+=callbacks.monitors.update_monitor.UpdateMonitor",
    "--trainer.callbacks.every_n_steps=1",
]
MONITOR += ["--trainer.log_every_n_steps=1"]
FOUR = ["--trainer.devices=4", "--trainer.strategy=fsdp2", "--data.loader.rows=1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for ranks, options in ((1, WHOLE), (2, SHARDED), (4, FOUR)):
        run_all(folder, [arguments(folder / str(ranks), "modality", *options, *MONITOR)], ranks=ranks)
    return folder


def logged(folder: Path) -> dict[str, list[float]]:
    (events,) = folder.rglob("events.*")
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    names = [name for name in accumulator.Tags()["scalars"] if name.startswith(("gradients/", "updates/"))]
    return {name: [event.value for event in accumulator.Scalars(name)] for name in names}


@pytest.mark.long
@pytest.mark.parametrize("ranks", [2, 4])
def test_norms_of_shards_are_those_of_the_whole(runs: Path, ranks: int) -> None:
    """Weights with one copy for each modality are in two halves, which are shared out by rows, or within them."""
    one, several = logged(runs / "1"), logged(runs / str(ranks))
    assert set(one) == {f"{what}/{part}" for what in ("gradients", "updates") for part in ("text", "visual", "shared")}
    assert several.keys() == one.keys()
    for name, values in one.items():
        assert len(values) == STEPS
        assert min(values) > 0
        assert several[name] == pytest.approx(values, rel=1e-3), name

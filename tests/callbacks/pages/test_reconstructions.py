from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torchvision.io import read_image

from callbacks.pages.reconstructions import Reconstructions
from tests.vision.training.toys import Pictures, batch_of, rae, shapes, trainer

TILE, GAP, LINE = 128, 6, 14


def tile(sheet: Tensor, row: int, column: int) -> Tensor:
    """A picture of the sheet, back at its 32 pixels."""
    top = row * (TILE + 2 * LINE + 2 * GAP) + LINE + GAP // 2
    left = GAP + column * (TILE + GAP)
    return sheet[:, top : top + TILE : TILE // 32, left : left + TILE : TILE // 32]


def test_original_reconstruction_and_difference_on_disk_and_in_tensorboard(tmp_path: Path) -> None:
    images = shapes(7, 32)
    logger = TensorBoardLogger(tmp_path, name=None, version="run")
    lit = rae()
    watch = Reconstructions(pictures=3, amplify=2.0)
    runner = trainer(tmp_path, 1, logger=logger, limit_val_batches=1.0, callbacks=[watch])
    runner.validate(lit, Pictures(validation=batch_of(images, [0, 0, 1, 0, 0, 0, 1])), verbose=False)
    drawn = (lit.draw(images).detach() * 255).round().clamp(0, 255)
    for source, members in (("drawings", [0, 1, 3]), ("game", [2, 6])):
        sheet = read_image(str(tmp_path / "run/samples" / source / "reconstructed/step_0000000.png"))
        for column, index in enumerate(members):
            assert torch.equal(tile(sheet, 0, column), images[index])
            assert (tile(sheet, 1, column) - drawn[index]).abs().max() <= 1
            error = ((drawn[index] - images[index]).abs() * 2).clamp(max=255)
            assert (tile(sheet, 2, column) - error).abs().max() <= 2
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    names = ["samples/drawings/reconstructed", "samples/game/reconstructed"]
    assert sorted(events.Tags()["images"]) == names


def test_nothing_is_shown_of_a_sanity_check(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name=None, version="run")
    data = Pictures(validation=batch_of(shapes(2, 32), [0, 0]))
    runner = trainer(
        tmp_path, 1, logger=logger, limit_val_batches=1.0, num_sanity_val_steps=1, val_check_interval=5,
        callbacks=[Reconstructions()],
    )  # fmt: skip
    runner.fit(rae(), data)
    assert not list(tmp_path.rglob("*.png"))

"""What several test files share."""

from pathlib import Path

import pytest

from lit_mm.cli import main
from tests.helpers.program import ROOT, SMALL


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a small model after three steps."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        main(
            [
                "fit",
                "--config=configs/tiny.yaml",
                *SMALL,
                "--trainer.max_steps=3",
                f"--trainer.logger.save_dir={folder}",
                "--trainer.callbacks+=ModelCheckpoint",
                f"--trainer.callbacks.dirpath={folder}",
                "--trainer.callbacks.every_n_train_steps=3",
            ]
        )
    (checkpoint,) = folder.glob("*.ckpt")
    return checkpoint

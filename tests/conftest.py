"""What several test files share."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from lit_mm.backbone import SequenceLayout
from lit_mm.cli import LitCLI, main
from tests.helpers.forked import FOLDER
from tests.helpers.program import ROOT, SMALL

# The same cases in every run, and none kept in the working folder.
settings.register_profile("tests", derandomize=True, database=None, deadline=None)
settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that all workers of a session share."""
    if not hasattr(config, "workerinput"):
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="lit_mm_tests_")
        (Path(os.environ[FOLDER]) / "owner").write_text(str(os.getpid()))


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ[FOLDER])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker is left alone with one of them in the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in slow)


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


@pytest.fixture
def random_layout() -> Callable[..., SequenceLayout]:
    """Makes rows of random documents of text and frames of 4 tokens, with padding behind them."""

    def make(seed: int, rows: int = 3, length: int = 48, frames: bool = True) -> SequenceLayout:
        rng = random.Random(seed)
        document, frame, position = ([[0] * length for _ in range(rows)] for _ in range(3))
        for r in range(rows):
            end = length - rng.randrange(1, 9)
            at = documents = pictures = 0
            while at < end:
                stop = min(end, at + rng.randrange(6, 25))
                start, ids = at, []
                while at < stop:
                    if frames and stop - at >= 4 and rng.random() < 0.3:
                        ids += [pictures] * 4
                        pictures += 1
                        at += 4
                    else:
                        ids.append(-1)
                        at += 1
                document[r][start:stop] = [documents] * (stop - start)
                frame[r][start:stop] = ids
                position[r][start:stop] = list(range(stop - start))
                documents += 1
            document[r][end:] = frame[r][end:] = [-1] * (length - end)
        return SequenceLayout(
            torch.tensor(document, dtype=torch.int32), torch.tensor(frame, dtype=torch.int32), torch.tensor(position)
        )

    return make


@pytest.fixture(scope="module")
def build_once() -> Iterator[None]:
    """The parser is built once a file: it takes longer than to parse."""
    build, built = LitCLI.setup_parser, {}

    def setup_parser(cli: LitCLI, *args: object) -> None:
        if not built:
            before = set(vars(cli))
            build(cli, *args)
            built.update({name: value for name, value in vars(cli).items() if name not in before})
        vars(cli).update(built)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LitCLI, "setup_parser", setup_parser)
        yield


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)

"""Checkpoints on disk: single files and folders of shards, read by any number of processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.load import _METADATA_FILENAME, _load_distributed_checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.distributed.checkpoint import CheckpointException, FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

_WEIGHTS = "state_dict."  # what names of weights start with in a folder of shards


def is_sharded(path: Path) -> bool:
    """Whether a path is a complete folder of shards."""
    return (path / _METADATA_FILENAME).is_file() and (path / ".metadata").is_file()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong within is said to be this checkpoint's fault, in one sentence.

    Raises:
        ValueError: the folder is no complete checkpoint, or a file cannot be read.
    """
    if path.is_dir() and not is_sharded(path):
        raise ValueError(
            f"'{path}' is no complete checkpoint: a folder of shards has a '.metadata' and a '{_METADATA_FILENAME}'; "
            "give another checkpoint"
        )
    try:
        yield
    except (Exception, CheckpointException) as error:  # torch's own is no Exception
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"the checkpoint '{path}' cannot be read ({lines[-1]}); give another one") from error


def read_header(path: Path) -> dict[str, Any]:
    """All that a checkpoint holds beside weights, which of a single file are only mapped."""
    with reading(path):
        if path.is_dir():
            return torch.load(path / _METADATA_FILENAME, map_location="cpu", weights_only=False)
        return torch.load(path, map_location="cpu", mmap=True, weights_only=False)


def shapes(path: Path) -> dict[str, torch.Size]:
    """Of all weights in a checkpoint, by name."""
    if not path.is_dir():
        return {name: value.shape for name, value in read_header(path)["state_dict"].items()}
    stored = FileSystemReader(path).read_metadata().state_dict_metadata
    return {
        name.removeprefix(_WEIGHTS): value.size
        for name, value in stored.items()
        if name.startswith(_WEIGHTS) and isinstance(value, TensorStorageMetadata)
    }


def reserve(path: Path) -> Path:
    """A name beside `path` to write to."""
    part = path.with_name(f".{path.name}.part")
    remove(part)
    return part


def replace(part: Path, path: Path) -> None:
    """Give what was written its name; what had it before is removed afterwards."""
    old = path.with_name(f".{path.name}.old")
    remove(old)
    if path.exists():
        path.rename(old)
    part.rename(path)
    remove(old)


def remove(path: Path) -> None:
    """Remove a file or folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class CheckpointFiles(TorchCheckpointIO):
    """Reads single files and folders of shards alike; writes single files.

    With it a run on one device goes on from, validates or predicts with what any number of processes wrote.
    """

    def load_checkpoint(
        self, path: Any, map_location: Callable | None = lambda storage, loc: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """A checkpoint as Lightning writes it on one device.

        Raises:
            ValueError: the folder is no checkpoint, or a shard cannot be read.
        """
        folder = Path(path)
        if not folder.is_dir():
            return super().load_checkpoint(path, map_location, weights_only)
        with reading(folder):
            checkpoint = _load_distributed_checkpoint(folder)
        optimizers = [key for key in checkpoint if key.startswith("optimizer_")]
        checkpoint["optimizer_states"] = [by_number(checkpoint.pop(key)) for key in sorted(optimizers)]
        return checkpoint


def by_number(state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state with parameters by number, as optimizers have it, instead of by name."""
    names = [name for group in state["param_groups"] for name in group["params"]]
    number = {name: i for i, name in enumerate(names)}
    groups = [{**group, "params": [number[name] for name in group["params"]]} for group in state["param_groups"]]
    return {"state": {number[name]: value for name, value in state["state"].items()}, "param_groups": groups}


def by_name(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The way back; `names` are those of the optimizer's parameters, group by group."""
    groups = [{**group, "params": [names[i] for i in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[i]: value for i, value in state["state"].items()}, "param_groups": groups}

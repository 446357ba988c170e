"""Checkpoints on disk: single files, folders of shards and exported weights, read by any number of processes."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.load import _METADATA_FILENAME, _load_distributed_checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from torch.distributed.checkpoint import CheckpointException, FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from lit_mm.mistake import Mistake
from lit_mm.parallel.background import Background
from lit_mm.parallel.exported import WEIGHTS, as_checkpoint, is_exported

_WEIGHTS = "state_dict."  # what names of weights start with in a folder of shards


def is_sharded(path: Path) -> bool:
    """Whether a path is a complete folder of shards."""
    return (path / _METADATA_FILENAME).is_file() and (path / ".metadata").is_file()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong within is said to be this checkpoint's fault, in one sentence.

    Raises:
        Mistake: the folder is no complete checkpoint, or a file cannot be read.
    """
    if path.is_dir() and not is_sharded(path) and not is_exported(path):
        raise Mistake(
            f"'{path}' is no complete checkpoint: a folder of shards has a '.metadata' and a '{_METADATA_FILENAME}', "
            f"an exported one a '{WEIGHTS}'; give another checkpoint"
        )
    if path.is_file() and not zipfile.is_zipfile(path):
        raise Mistake(f"the checkpoint '{path}' cannot be read (it is cut short, or none at all); give another one")
    try:
        yield
    except (Exception, CheckpointException) as error:  # torch's own is no Exception
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Mistake(f"the checkpoint '{path}' cannot be read ({reason}); give another one") from error


def read_header(path: Path) -> dict[str, Any]:
    """All that a checkpoint holds beside weights; of a single file they are mapped, of an exported folder read."""
    with reading(path):
        if is_exported(path):
            return as_checkpoint(path)
        if path.is_dir():
            return torch.load(path / _METADATA_FILENAME, map_location="cpu", weights_only=False)
        return torch.load(path, map_location="cpu", mmap=True, weights_only=False)


def shapes(path: Path) -> dict[str, torch.Size]:
    """Of all weights in a checkpoint, by name."""
    if not is_sharded(path):
        return {name: value.shape for name, value in read_header(path)["state_dict"].items()}
    stored = FileSystemReader(path).read_metadata().state_dict_metadata
    return {
        name.removeprefix(_WEIGHTS): value.size
        for name, value in stored.items()
        if name.startswith(_WEIGHTS) and isinstance(value, TensorStorageMetadata)
    }


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; at the end what was written there gets its name.

    Whatever happens in between, there is a complete checkpoint under the old name, or, for the moment between two
    renames of a folder, under `.<name>.old`, which `--ckpt_path last` finds.

    Raises:
        Mistake: it could not be written, for want of space, say. What was written of it is removed.
    """
    part = part_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(part)
    try:
        with refusing_to_write(path):
            yield part
            put_in_place(part, path)
    finally:
        remove(part)


@contextmanager
def refusing_to_write(path: Path) -> Iterator[None]:
    """Whatever goes wrong within is said to be in the way of writing this checkpoint, in one sentence.

    Raises:
        Mistake: with the reason and the space that is left.
    """
    try:
        yield
    except (OSError, RuntimeError, CheckpointException) as error:  # torch's writer raises RuntimeError
        free = shutil.disk_usage(path.parent).free / 2**20
        raise Mistake(
            f"the checkpoint '{path}' could not be written ({_system_said(error)}), with {free:,.1f} MiB left on its "
            "disk: make room there or choose another folder; earlier checkpoints are as they were"
        ) from error


def _system_said(error: BaseException) -> str:
    """Why a checkpoint could not be written, on whichever process: a full disk, or a process that is lost."""
    failed = [each for each, _ in error.failures.values()] if isinstance(error, CheckpointException) else [error]
    if said := [each.strerror for each in failed if isinstance(each, OSError) and each.strerror]:
        return said[0]
    lines = str(failed[0] if failed else error).strip().splitlines() or [type(error).__name__]
    # Refusals of torch's own writer are about its own numbers.
    return "torch's writer stopped there" if any("inline_container" in line for line in lines) else lines[-1]


def part_of(path: Path) -> Path:
    """What a checkpoint is called while it is being written."""
    return path.with_name(f".{path.name}.part")


def to_bytes(value: Any) -> bytes:
    """As `torch.save` writes it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def put_in_place(part: Path, path: Path) -> None:
    """Give what was written its name; what had it before is removed afterwards."""
    if not path.is_dir() and not path.is_symlink() and not part.is_dir():
        part.replace(path)
        return
    old = path.with_name(f".{path.name}.old")  # a folder, or a link, cannot be replaced at one stroke
    remove(old)
    if path.exists() or path.is_symlink():
        path.rename(old)
    part.rename(path)
    remove(old)


def remove(path: Path) -> None:
    """Remove a file, folder or link, if there is one. A folder loses its name first: half of one is no checkpoint."""
    if path.is_dir() and not path.is_symlink():
        nameless = path.with_name(f".{path.name}.removed")
        shutil.rmtree(nameless, ignore_errors=True)
        path.rename(nameless)
        shutil.rmtree(nameless)
    else:
        path.unlink(missing_ok=True)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Those in a folder that can be gone on from, but for links; half-written ones are not among them."""
    named = sorted([*folder.glob("[!.]*.ckpt"), *folder.glob(".*.ckpt.old")])
    found = [path for path in named if not path.is_symlink()]
    return [path for path in found if is_sharded(path) or (path.is_file() and zipfile.is_zipfile(path))]


class CheckpointFiles(TorchCheckpointIO):
    """Reads single files and folders of shards alike; writes single files.

    With it a run on one device goes on from, validates or predicts with what any number of processes wrote.

    Args:
        in_background: whether training goes on while a copy of the checkpoint is written.
    """

    def __init__(self, in_background: bool = False) -> None:
        self.background = Background(in_background)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write beside the old checkpoint, and put it in its place when it is complete.

        Raises:
            Mistake: it could not be written.
        """
        if self.background.enabled:
            self.background.finish()  # no more than one copy in memory
            checkpoint = apply_to_collection(checkpoint, torch.Tensor, _copy_to_cpu)
        self.background.run(partial(self._write, checkpoint, Path(path)))

    @staticmethod
    def _write(checkpoint: dict[str, Any], path: Path) -> None:
        with writing(path) as part, part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())

    def remove_checkpoint(self, path: Any) -> None:
        """Remove one, when those that were to be written before are complete."""
        self.background.run(partial(remove, Path(path)))

    def teardown(self) -> None:
        """Wait until all is written."""
        self.background.teardown()

    def load_checkpoint(
        self, path: Any, map_location: Callable | None = lambda storage, loc: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """A checkpoint as Lightning writes it on one device.

        Raises:
            Mistake: the folder is no checkpoint, or a shard cannot be read.
        """
        folder = Path(path)
        if is_exported(folder):
            return read_header(folder)
        if not folder.is_dir():
            return super().load_checkpoint(path, map_location, weights_only)
        with reading(folder):
            checkpoint = _load_distributed_checkpoint(folder)
        optimizers = [key for key in checkpoint if key.startswith("optimizer_")]
        checkpoint["optimizer_states"] = [by_number(checkpoint.pop(key)) for key in sorted(optimizers)]
        return checkpoint


def _copy_to_cpu(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


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

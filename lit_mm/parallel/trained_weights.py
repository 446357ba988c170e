"""Where a trained model is found, and the weights that it is used with, out of any kind of checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, load
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from lit_mm.mistake import MissingFile, Mistake
from lit_mm.parallel.checkpoint_checks import has_average
from lit_mm.parallel.checkpoint_files import is_sharded, read_header, reading
from lit_mm.parallel.exported import CONFIG_KEY, is_exported
from lit_mm.weights import names, shipped


class TrainedWeights(NamedTuple):
    """Of one checkpoint.

    Attributes:
        weights: of `LitMultimodal.model`, by name; the averaged ones if the checkpoint has any.
        header: what the checkpoint holds beside weights, with its configuration and both fingerprints.
    """

    weights: dict[str, Tensor]
    header: dict[str, Any]


def find_checkpoint(source: str | Path) -> Path:
    """The path of a checkpoint, or of a model that comes with the package.

    Raises:
        MissingFile: it is neither.
    """
    path = Path(source)
    if path.is_file() or is_sharded(path) or is_exported(path):
        return path
    if (folder := shipped(str(source))) is not None:
        return folder
    found = "is no complete checkpoint" if path.exists() else "does not exist"
    raise MissingFile(
        f"'{source}' {found}; give a .ckpt file or folder that fit has written, a folder of lit_mm.export, or the name "
        f"of a model that comes with lit-mm: {', '.join(names())}"
    )


def read_trained(path: Path) -> TrainedWeights:
    """Read a .ckpt file, a folder of shards or an exported folder; optimizer states stay on the disk.

    Raises:
        Mistake: it cannot be read, or is not of a multimodal model.
    """
    header = read_header(path)
    if CONFIG_KEY not in header or "vision" not in header:
        raise Mistake(f"the checkpoint '{path}' is not of a multimodal model; give one that `lit-mm fit` wrote of one")
    weights = _from_shards(path) if is_sharded(path) else header.pop("state_dict")
    prefix = "averaged." if has_average(weights) else "model."
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    return TrainedWeights(own, header)


def _from_shards(path: Path) -> dict[str, Tensor]:
    start = "state_dict."
    with reading(path):
        stored = FileSystemReader(path).read_metadata().state_dict_metadata
        weights = {
            name.removeprefix(start): torch.empty(value.size, dtype=value.properties.dtype)
            for name, value in stored.items()
            if name.startswith(start) and isinstance(value, TensorStorageMetadata)
        }
        load({"state_dict": weights}, storage_reader=FileSystemReader(path), no_dist=True)
    return weights

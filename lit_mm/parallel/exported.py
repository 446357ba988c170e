"""The format of an exported folder, which `--ckpt_path` takes too: weights, configuration and text tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import __version__
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lit_mm.tensor_files import save_tensors
from lit_mm.tokenizer import Tokenizer

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.yaml", "tokenizer.json"
STEERING = "steering.yaml"  # where the run had one
CONFIG_KEY = "lit_mm_config"  # where a checkpoint keeps the configuration it was trained with
SHARED_KEYS = ("seed_everything", "trainer", "model", "data")  # of the configurations of fit, validate and predict
_FINGERPRINTS = ("vision", "text_tokenizer")  # as checkpoints call them


def is_exported(path: Path) -> bool:
    """Whether a path is an exported folder."""
    return (path / WEIGHTS).is_file()


def write(folder: Path, weights: dict[str, Tensor], checkpoint: dict[str, Any], config: dict[str, Any]) -> None:
    """Write weights and configuration; the text tokenizer is put beside them by the caller.

    Args:
        folder: exists.
        weights: of `LitMultimodal.model`, in the precision they are stored in.
        checkpoint: they are from, for its fingerprints.
        config: as `--config` takes it.
    """
    metadata = {name: str(checkpoint[name]) for name in _FINGERPRINTS}
    save_tensors(weights, folder / WEIGHTS, metadata=metadata)
    (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration, with the text tokenizer and the steering of the folder itself.

    Raises:
        MissingFile: a file is missing.
    """
    config = yaml.safe_load((folder / CONFIG).read_text())
    data = config["data"]["init_args"]
    data["tokenizer"] = Tokenizer(folder / TOKENIZER).file.as_posix()
    if (folder / STEERING).is_file():
        data["steering"] = (folder / STEERING).as_posix()
    return config


def read_weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights in float32, and fingerprints, named as in a checkpoint.

    Raises:
        MissingFile: the file is missing.
    """
    with safe_open(folder / WEIGHTS, "pt") as file:
        header = dict(file.metadata())
    return {name: _loaded(value) for name, value in load_file(folder / WEIGHTS).items()}, header


def as_checkpoint(folder: Path) -> dict[str, Any]:
    """What Lightning would have written of these weights alone, without optimizers and loops."""
    weights, header = read_weights(folder)
    return {
        "state_dict": {f"model.{name}": value for name, value in weights.items()},
        "pytorch-lightning_version": __version__,
        "epoch": 0,
        "global_step": 0,
        CONFIG_KEY: yaml.safe_dump(read_config(folder), sort_keys=False),
        **header,
    }


def _loaded(value: Tensor) -> Tensor:
    return value.to(torch.float32 if value.is_floating_point() else value.dtype)

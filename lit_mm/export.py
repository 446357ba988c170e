"""A trained model as a folder of its own, that `lit_mm.load` and `--ckpt_path` take.

`python -m lit_mm.export CHECKPOINT FOLDER`, then `lit-mm predict --ckpt_path FOLDER` or `validate`, or in Python
`lit_mm.load("FOLDER")`.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import auto_cli
from safetensors import safe_open

from callbacks.latent_cache import LatentCache
from data_modules.prompting.steering import Steering
from lit_mm.mistake import Mistake, ends_with_a_sentence
from lit_mm.parallel.exported import CONFIG_KEY, SHARED_KEYS, STEERING, TOKENIZER, WEIGHTS, write
from lit_mm.parallel.trained_weights import read_trained
from lit_mm.tokenizer import Tokenizer


def export(checkpoint: Path, folder: Path, dtype: Literal["float32", "bfloat16"] = "float32") -> None:
    """Write `model.safetensors`, `config.yaml` and `tokenizer.json`.

    What `data.steering` names is written beside them as `steering.yaml`. The visual tokenizer is named in the
    configuration, not copied; its fingerprint is checked when the folder is loaded. The configuration is that of the
    run but for `model.parallelize`, `model.start_from` and a cache of latents, which belong to the machine, for the
    prompts, and for the number of its run folder: every `predict` with the export gets a folder of its own.

    Args:
        checkpoint: a file, or a folder of shards; its averaged weights are taken if it has any.
        folder: to write to; must be new or empty.
        dtype: of the stored weights.

    Raises:
        Mistake: the folder is not empty, or the checkpoint cannot be read or is of another kind of model.
        MissingFile: the checkpoint or the text tokenizer is not there.
    """
    if ":/" in str(folder):  # a URL, of which `Path` leaves one slash
        raise Mistake(f"'{folder}' is a URL; export to a folder on a local disk, and copy it from there")
    if folder.exists() and any(folder.iterdir()):
        raise Mistake(f"'{folder}' is not empty; name another folder")
    weights, header = read_trained(checkpoint)
    config = yaml.safe_load(header[CONFIG_KEY])
    config = {key: config[key] for key in SHARED_KEYS}
    for key in ("parallelize", "start_from"):
        config["model"]["init_args"].pop(key, None)
    loggers = config["trainer"].get("logger")
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(logger, dict):
            logger.get("init_args", {}).pop("version", None)
    config["trainer"]["callbacks"] = [c for c in config["trainer"].get("callbacks") or () if not _is_cache(c)]
    data = config["data"]["init_args"]
    data.pop("prompts", None)
    copied = {TOKENIZER: Tokenizer(data["tokenizer"]).file}
    if steering := data.pop("steering", None):
        copied[STEERING] = Path(Steering.load(steering).path)
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in copied.items():
        shutil.copyfile(file, folder / name)
    write(folder, {name: _stored(value, getattr(torch, dtype)) for name, value in weights.items()}, header, config)


def _is_cache(callback: Any) -> bool:
    path = callback["class_path"] if isinstance(callback, dict) else callback
    return path == f"{LatentCache.__module__}.{LatentCache.__name__}"


def _stored(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype if value.is_floating_point() else value.dtype).contiguous()


def main(checkpoint: Path, folder: Path, dtype: Literal["float32", "bfloat16"] = "float32") -> None:
    """Export, and say what was written."""
    export(checkpoint, folder, dtype)
    size = sum(file.stat().st_size for file in folder.iterdir())
    with safe_open(folder / WEIGHTS, "pt") as file:
        parameters = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    print(f"exported '{folder}': {parameters / 1e6:,.1f} M parameters in {dtype}, {size / 1e6:,.0f} MB")


if __name__ == "__main__":
    with ends_with_a_sentence():
        auto_cli(main)

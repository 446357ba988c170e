"""A trained model as a folder that plain Python loads, without a Trainer or data, and that `--ckpt_path` takes.

`python -m lit_mm.export CHECKPOINT FOLDER`, then `lit-mm predict --ckpt_path FOLDER` or `validate`, or

    from lit_mm.export import load
    from lit_mm.generation.answers import answer
    from lit_mm.prompt import Prompt

    decoder = load("FOLDER")
    answer(decoder, Prompt("fox", "image", ("fox",))).frames   # (1, 3, height, width) uint8
    decoder.model                                              # the transformer, a plain nn.Module
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import ArgumentParser, auto_cli
from lightning.pytorch import LightningModule

from callbacks.latent_cache import LatentCache
from lit_mm.generation.decoding import Decoder
from lit_mm.mistake import Mistake, ends_with_a_sentence
from lit_mm.module import LitMultimodal
from lit_mm.parallel.checkpoint_checks import check_shapes, check_tokenizers, shapes_of
from lit_mm.parallel.checkpoint_files import CheckpointFiles
from lit_mm.parallel.exported import CONFIG_KEY, SHARED_KEYS, TOKENIZER, read_config, read_weights, write
from lit_mm.tokenizer import Tokenizer


def export(checkpoint: Path, folder: Path, dtype: Literal["float32", "bfloat16"] = "float32") -> None:
    """Write `model.safetensors`, `config.yaml` and `tokenizer.json`.

    The visual tokenizer is named in the configuration, not copied; its fingerprint is checked when the folder is
    loaded. The configuration is that of the run but for `model.parallelize`, `model.start_from` and a cache of latents,
    which belong to the machine, and the number of its run folder: every `predict` with the export gets a folder of its
    own.

    Args:
        checkpoint: a file, or a folder of shards; its averaged weights are taken if it has any.
        folder: to write to; must be new or empty.
        dtype: of the stored weights.

    Raises:
        Mistake: the folder is not empty, or the checkpoint cannot be read or is of another kind of model.
        MissingFile: the checkpoint or the text tokenizer is not there.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Mistake(f"'{folder}' is not empty; name another folder")
    saved = CheckpointFiles().load_checkpoint(checkpoint, weights_only=False)
    if CONFIG_KEY not in saved or "vision" not in saved:
        raise Mistake(
            f"the checkpoint '{checkpoint}' is not of a multimodal model; give one that `lit-mm fit` wrote of one"
        )
    config = yaml.safe_load(saved[CONFIG_KEY])
    weights = saved["state_dict"]
    prefix = "averaged." if any(name.startswith("averaged.") for name in weights) else "model."
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    config = {key: config[key] for key in SHARED_KEYS}
    for key in ("parallelize", "start_from"):
        config["model"]["init_args"].pop(key, None)
    loggers = config["trainer"].get("logger")
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(logger, dict):
            logger.get("init_args", {}).pop("version", None)
    config["trainer"]["callbacks"] = [c for c in config["trainer"].get("callbacks") or () if not _is_cache(c)]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Tokenizer(config["data"]["init_args"]["tokenizer"]).file, folder / TOKENIZER)
    write(folder, {name: _stored(value, getattr(torch, dtype)) for name, value in own.items()}, saved, config)


def load(folder: str | Path, device: str | torch.device = "cpu") -> Decoder:
    """The model of an exported folder, ready to write and draw.

    Args:
        folder: as `export` wrote it.
        device: where to put it.

    Raises:
        MissingFile: a file is missing.
        Mistake: a tokenizer is another than in training, or the weights are not the configuration's.
    """
    folder = Path(folder)
    weights, header = read_weights(folder)
    module = _module(read_config(folder)["model"])
    tokenizer = Tokenizer(folder / TOKENIZER)
    check_tokenizers(header, module.vision.fingerprint(), tokenizer.fingerprint())
    module.configure_model()
    check_shapes(shapes_of(weights), shapes_of(module.model.state_dict()))
    module.model.load_state_dict(weights)
    module.eval().to(device)
    return Decoder(module.model, module.vision, module.flow, module.sampler, tokenizer)


def _module(config: dict[str, Any]) -> LitMultimodal:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model", required=True)
    return parser.instantiate_classes(parser.parse_object({"model": config})).model


def _is_cache(callback: Any) -> bool:
    path = callback["class_path"] if isinstance(callback, dict) else callback
    return path == f"{LatentCache.__module__}.{LatentCache.__name__}"


def _stored(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype if value.is_floating_point() else value.dtype).contiguous()


if __name__ == "__main__":
    with ends_with_a_sentence():
        auto_cli(export)

"""A trained model in plain Python, without a Trainer or data: `lit_mm.load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule

from data_modules.mixing.loader_config import LoaderConfig
from data_modules.prompting.template import Template
from lit_mm import loaded_inputs
from lit_mm.building import BuildsModel
from lit_mm.generation.decoding import Decoder
from lit_mm.loaded_model import LoadedModel
from lit_mm.module import LitMultimodal
from lit_mm.parallel.checkpoint_checks import check_shapes, check_tokenizers, shapes_of
from lit_mm.parallel.exported import CONFIG_KEY
from lit_mm.parallel.trained_weights import find_checkpoint, read_trained
from lit_mm.precision import compute_dtype, usable
from lit_mm.tokenizer import Tokenizer


def load(source: str | Path, device: str | torch.device | None = None, precision: str | None = None) -> LoadedModel:
    """Load a trained model, ready to draw, describe, write and imagine.

    Args:
        source: a checkpoint that `fit` has written (a .ckpt file, or a folder of shards), a folder of
            `python -m lit_mm.export`, or the name of a model that comes with the package, `lab`.
        device: where to put it; the GPU if there is one, else the CPU.
        precision: `32-true`, `bf16-mixed` or `16-mixed`; by default that of the run, or `32-true` where it was
            `bf16-mixed` and the processor does not multiply bfloat16.

    Raises:
        MissingFile: there is no such checkpoint, or a file that it names is missing.
        Mistake: it cannot be read, a tokenizer is another than in training, or there is no such device or precision.
    """
    path, place = find_checkpoint(loaded_inputs.source(source)), loaded_inputs.device(device)
    weights, header = read_trained(path)
    config = yaml.safe_load(header[CONFIG_KEY])
    data = config["data"]["init_args"]
    tokenizer = Tokenizer(data["tokenizer"])
    module = _module(config["model"])
    as_trained = usable(config["trainer"].get("precision") or "32-true", place.type)
    module.compute_dtype = compute_dtype(precision or as_trained)
    check_tokenizers(header, module.vision.fingerprint(), tokenizer.fingerprint())
    BuildsModel.configure_model(module)  # without its warning, which is for training
    check_shapes(shapes_of(weights), shapes_of(module.model.state_dict()))
    module.model.load_state_dict(weights)
    module.eval().to(place)
    decoder = Decoder(module.model, module.vision, module.flow, module.sampler, tokenizer)
    context = (data.get("loader") or {}).get("row_length", LoaderConfig.row_length)
    return LoadedModel(path, decoder, context, data.get("steering"), Template(**(data.get("template") or {})))


def _module(config: dict[str, Any]) -> LitMultimodal:
    """As configured, but for what belongs to the machine and the run."""
    config["init_args"] = {k: v for k, v in config["init_args"].items() if k not in ("parallelize", "start_from")}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model", required=True)
    return parser.instantiate_classes(parser.parse_object({"model": config})).model

"""A new run that starts from the weights of another."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from lit_mm.mistake import MissingFile
from lit_mm.parallel.checkpoint_checks import check_shapes, check_tokenizers, shapes_of
from lit_mm.parallel.exported import WEIGHTS, is_exported
from lit_mm.weights import names, shipped


@torch.no_grad()
def load_starting_weights(model: nn.Module, source: str, vision: str, text: str) -> None:
    """Give a model, which may be sharded, the weights of an exported folder.

    Every process reads the folder and keeps its own shards; it holds one whole tensor at a time.

    Args:
        model: with storage, on any device.
        source: folder as `lit_mm.export` wrote it, or the name of a model that comes with the package.
        vision: fingerprint of the visual tokenizer.
        text: of the text tokenizer.

    Raises:
        MissingFile: it is neither.
        Mistake: the weights are of other tokenizers or shapes.
    """
    folder = Path(source) if is_exported(Path(source)) else shipped(source)
    if folder is None:
        raise MissingFile(
            f"model.start_from is '{source}', which holds no '{WEIGHTS}'; give a folder that `python -m lit_mm.export "
            f"CHECKPOINT FOLDER` wrote, the name of a model that comes with lit-mm ({', '.join(names())}), or null "
            "where a run goes on from a checkpoint"
        )
    own = model.state_dict()
    with safe_open(folder / WEIGHTS, "pt") as file:
        advice = f"describe the model of model.start_from, as in '{folder / 'config.yaml'}'"
        check_tokenizers(file.metadata() or {}, vision, text, advice)
        check_shapes(
            {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()},  # noqa: SIM118
            shapes_of(own),
            advice,
        )
        for name, value in own.items():
            whole = file.get_tensor(name).to(value.device, value.dtype)
            if isinstance(value, DTensor):
                whole = distribute_tensor(whole, value.device_mesh, value.placements, src_data_rank=None)
            value.copy_(whole)

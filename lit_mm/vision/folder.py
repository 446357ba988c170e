"""An autoencoder as a folder: `config.json` and `model.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_mm.vision.encoder import TimmEncoder
from lit_mm.vision.rae import RaeConfig, RaeNetwork, build_decoder

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_rae import RAEDecoder

SHIPPED = Path(__file__).parent / "weights"
WEIGHTS = "model.safetensors"
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"


def save_folder(network: RaeNetwork, folder: str | Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write `network` to `folder`, its weights stored in `dtype`.

    Tensors are named `encoder.…` as timm and `decoder.…` as diffusers' `AutoencoderRAE` name them.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"encoder.{k}": v for k, v in network.encoder.vit.state_dict().items()}
    tensors |= {f"decoder.{k}": v for k, v in network.decoder.state_dict().items()}
    stored = {k: v.detach().to("cpu", dtype).contiguous() for k, v in tensors.items()}
    save_file(stored, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(asdict(network.config), indent=2) + "\n", encoding="utf8")
    return folder


def load_folder(folder: str | Path) -> RaeNetwork:
    """Read what `save_folder` wrote, in float32.

    Raises:
        FileNotFoundError: the folder or one of its files does not exist.
        ValueError: a file cannot be read, or its keys or shapes are not those of the network it describes.
    """
    path = find_folder(folder)
    values = _read_config(path)
    known = {f.name for f in fields(RaeConfig)}
    if wrong := known.symmetric_difference(values):
        raise ValueError(f"'{path / 'config.json'}' {_named(wrong & known, wrong - known)}")
    network = RaeNetwork(RaeConfig(**values))
    tensors, file = _read_tensors(path)
    parts: dict[str, nn.Module] = {"encoder": network.encoder.vit, "decoder": network.decoder}
    _load(parts, tensors, file)
    return network


def load_decoder(folder: str | Path, config: RaeConfig, encoder: TimmEncoder) -> RAEDecoder:
    """The decoder alone, from our folder or from diffusers' `AutoencoderRAE`, for the tokens of `encoder`.

    Raises:
        FileNotFoundError: the folder or one of its files does not exist.
        ValueError: a file cannot be read, or the decoder is for other tokens or pictures.
    """
    path = find_folder(folder)
    values = _read_config(path)
    sizes = [f.name for f in fields(RaeConfig) if f.name.startswith("decoder_")]
    if missing := {name for name in sizes if name not in values}:
        raise ValueError(f"'{path / 'config.json'}' {_named(missing, set())}")
    config = replace(config, **{name: values[name] for name in sizes})
    decoder = build_decoder(config, encoder.num_tokens, encoder.channels)
    tensors, file = _read_tensors(path)
    _load({"decoder": decoder}, {k: v for k, v in tensors.items() if k.startswith("decoder.")}, file)
    return decoder


def find_folder(folder: str | Path) -> Path:
    """`folder` itself, or the one of that name that comes with the package.

    Raises:
        FileNotFoundError: neither exists.
    """
    for path in (Path(folder), SHIPPED / folder):
        if path.is_dir():
            return path
    shipped = ", ".join(sorted(p.name for p in SHIPPED.iterdir() if p.is_dir())) if SHIPPED.is_dir() else "none"
    raise FileNotFoundError(f"vision folder '{folder}' does not exist; those that come with the package: {shipped}")


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"'{file}' does not exist; a vision folder holds config.json and {WEIGHTS}")
    try:
        values = json.loads(file.read_text(encoding="utf8"))
    except ValueError as error:
        raise ValueError(f"'{file}' is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"'{file}' holds a {type(values).__name__}; a JSON object of settings is expected")
    return values


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], Path]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for file in (path / WEIGHTS, path / DIFFUSERS_WEIGHTS):
        if file.is_file():
            try:
                return load_file(file), file
            except SafetensorError as error:
                raise ValueError(f"'{file}' is not a whole safetensors file: {error}") from error
    raise FileNotFoundError(f"'{path / WEIGHTS}' does not exist; a vision folder holds config.json and {WEIGHTS}")


def _load(parts: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], file: Path) -> None:
    """Copy `tensors` into `parts`, whose names are the first part of every key; all must be there and fit."""
    expected = {f"{part}.{k}": v for part, module in parts.items() for k, v in module.state_dict().items()}
    if wrong := expected.keys() ^ tensors.keys():
        raise ValueError(f"'{file}' {_named(wrong & expected.keys(), wrong & tensors.keys())}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            found, wanted = tuple(tensor.shape), tuple(expected[name].shape)
            raise ValueError(f"'{file}' holds '{name}' of shape {found}; config.json asks for {wanted}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            expected[name].copy_(tensor)


def _named(missing: set[str], unexpected: set[str]) -> str:
    """The rest of a sentence that names missing and unexpected keys."""
    said = []
    for kind, names in (("lacks", missing), ("has the unexpected", unexpected)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            said.append(f"{kind} {', '.join(sorted(names)[:3])}{more}")
    return " and ".join(said)

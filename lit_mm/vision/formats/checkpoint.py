"""Weights from files: read whole, checked in full, copied or refused with the file's and the tensor's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_mm.mistake import MissingFile, Mistake


def read_json(file: Path) -> dict[str, Any]:
    """The settings in a JSON file.

    Raises:
        MissingFile: there is no such file.
        Mistake: it is not JSON, or not an object.
    """
    if not file.is_file():
        raise MissingFile(f"'{file}' does not exist; it describes the weights beside it")
    try:
        values = json.loads(file.read_text(encoding="utf8"))
    except ValueError as error:
        raise Mistake(f"'{file}' is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise Mistake(f"'{file}' holds a {type(values).__name__}; a JSON object of settings is expected")
    return values


def read_tensors(file: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, Any]:
    """What a `.safetensors` file or one written by `torch.save` holds, of names that start with one of `prefixes`.

    A file of `torch.save` is read without running code from it, and may hold more than tensors.

    Raises:
        Mistake: the file cannot be read.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(file, "pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys() if name.startswith(prefixes)}  # noqa: SIM118
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what unpickling raises: anything
        reason = " ".join(str(error).split())[:120]
        kind = "safetensors file" if file.suffix == ".safetensors" else "file of tensors that torch.save wrote"
        raise Mistake(f"'{file}' is not a whole {kind} ({reason})") from error
    if not isinstance(content, dict):
        raise Mistake(f"'{file}' holds a {type(content).__name__}; a dict of named tensors is expected")
    return {name: value for name, value in content.items() if str(name).startswith(prefixes)}


def find_weights(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The files of `folder` that hold its weights: one of `names`, or the shards that `<name>.index.json` lists.

    Raises:
        MissingFile: there is none, or a shard is missing.
    """
    for name in names:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = [folder / shard for shard in sorted(set(read_json(index).get("weight_map", {}).values()))]
            if missing := [shard for shard in shards if not shard.is_file()]:
                raise MissingFile(f"'{missing[0]}' does not exist, but '{index}' lists it")
            return shards
    raise MissingFile(f"'{folder / names[0]}' does not exist, and no other weights are in that folder")


def copy_tensors(into: Mapping[str, Tensor], tensors: Mapping[str, Tensor], file: Path) -> None:
    """Copy `tensors` into those of the same names; all must be there, fit and be finite, or nothing is copied.

    Raises:
        Mistake: a name is missing or not known, a shape is another, or a value is not finite.
    """
    if wrong := into.keys() ^ tensors.keys():
        raise Mistake(f"'{file}' {named(wrong & into.keys(), wrong & tensors.keys())}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise Mistake(f"'{file}' holds a {type(tensor).__name__} as '{name}'; a tensor is expected")
        if tensor.shape != into[name].shape:
            found, wanted = tuple(tensor.shape), tuple(into[name].shape)
            raise Mistake(f"'{file}' holds '{name}' of shape {found}; the configured network needs {wanted}")
        if not bool(tensor.isfinite().all()):
            raise Mistake(f"'{file}' holds '{name}' with values that are not finite")
    with torch.no_grad():
        for name, tensor in tensors.items():
            into[name].copy_(tensor)


def named(missing: set[str], unexpected: set[str]) -> str:
    """The rest of a sentence that names missing and unexpected keys."""
    said = []
    for kind, names in (("lacks", missing), ("has the unexpected", unexpected)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            said.append(f"{kind} {', '.join(sorted(names)[:3])}{more}")
    return " and ".join(said)

"""Storage and first values for a part of a model that was built on the meta device, and proof that all were given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from lit_mm.mistake import Mistake, name_of

_UNSET = 0x55  # every byte of an unset integer or bool


def materialise(part: nn.Module, reset: Callable[[], None], device: torch.device) -> None:
    """Give a part storage on a device, and its first values.

    Storage is marked before, so that a tensor that `reset` passes over is found: it would be trained on whatever lay in
    that memory, and what a constructor gave it is lost.

    Args:
        part: without storage.
        reset: sets all its parameters and buffers.
        device: of its storage.

    Raises:
        Mistake: `reset` leaves a parameter or a buffer as it found it, or a number in it.
    """
    part.to_empty(device=device)
    for _, tensor in _tensors(part):
        _mark(tensor)
    reset()
    for name, tensor in _tensors(part):
        if _is_marked(tensor):
            owner, name = _owner(part, name)
            raise Mistake(
                f"reset_parameters of {name_of(owner)} does not set {name}; set it there: models are built without "
                "storage, so a value from the constructor is lost"
            )


def check_all_materialised(model: nn.Module) -> None:
    """Refuse a model with tensors outside of its parts.

    Raises:
        Mistake: a parameter or a buffer has no storage.
    """
    for name, tensor in _tensors(model):
        if tensor.is_meta:
            owner, name = _owner(model, name)
            raise Mistake(
                f"{name_of(owner)} has {name}, which nothing gives a first value; only its embedding, its layers and "
                "its norm get one, so keep it in one of these"
            )


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(module.named_parameters(), module.named_buffers())


@torch.no_grad()
def _mark(tensor: Tensor) -> None:
    if tensor.is_meta:
        return
    if tensor.is_floating_point() or tensor.is_complex():
        tensor.fill_(float("nan"))
    else:
        tensor.flatten().view(torch.uint8).fill_(_UNSET)


@torch.no_grad()
def _is_marked(tensor: Tensor) -> bool:
    if tensor.is_meta or not tensor.numel():
        return False
    if tensor.is_floating_point() or tensor.is_complex():
        return bool(tensor.isnan().any())
    return bool((tensor.flatten().view(torch.uint8) == _UNSET).all())


def _owner(part: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Whose `reset_parameters` should have set a tensor, and the tensor's name there.

    That of a stranger, if there is one; otherwise the innermost that is no module of torch's own.
    """
    path = name.split(".")
    holders = [part]
    for step in path[:-1]:
        holders.append(getattr(holders[-1], step))
    strange = [i for i, holder in enumerate(holders) if _package(holder) not in ("lit_mm", "torch")]
    ours = [i for i, holder in enumerate(holders) if _package(holder) == "lit_mm"]
    at = strange[0] if strange else (ours or [0])[-1]
    return holders[at], ".".join(path[at:])


def _package(module: nn.Module) -> str:
    return type(module).__module__.partition(".")[0]

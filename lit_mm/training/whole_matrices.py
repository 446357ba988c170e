"""Functions of whole matrices where each process has a part of every matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard


def local(tensor: Tensor) -> Tensor:
    """The part of it that this process has, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def has_whole_matrices(tensor: Tensor) -> bool:
    """Whether sharding leaves matrices, the last two dimensions, whole: stacks may be sharded matrix by matrix."""
    return not isinstance(tensor, DTensor) or _sharded_dim(tensor) < tensor.ndim - 2


def in_turns(parameters: Sequence[Tensor]) -> Iterator[list[DTensor]]:
    """As many at a time as there are processes to a copy of the model; those of one turn are about equally large."""
    ordered = sorted(cast(Sequence[DTensor], parameters), key=lambda parameter: -parameter.numel())
    processes = _shard_group(ordered[0]).size() if ordered else 1
    for start in range(0, len(ordered), processes):
        yield ordered[start : start + processes]


def map_whole(
    function: Callable[[Tensor], Tensor], parameters: Sequence[DTensor], parts: Sequence[Tensor]
) -> list[Tensor]:
    """What a function makes of values that are sharded as `parameters` are; each process computes it of one.

    Process 0 receives all parts of the first value, process 1 those of the second and so on, and each sends back parts
    of its result. Copies of the model do the same, each among its own processes.

    Args:
        function: of a whole value, into the same shape and precision.
        parameters: not more than there are processes to a copy, all on one mesh, (shard,) or (copy, shard).
        parts: this process's of each value, of one precision.

    Returns:
        This process's parts of the results.
    """
    group = _shard_group(parameters[0])
    own = parameters[dist.get_rank(group)] if dist.get_rank(group) < len(parameters) else None
    shapes = [] if own is None else _shapes_of_parts(own, group.size())
    whole_sizes = [math.prod(shape) for shape in shapes] or [0] * group.size()
    part_sizes = [part.numel() for part in parts] + [0] * (group.size() - len(parts))
    received = _exchange(parts, part_sizes, whole_sizes, group)
    results: Sequence[Tensor] = received
    if own is not None:
        dim = _sharded_dim(own)
        whole = torch.cat([part.view(shape) for part, shape in zip(received, shapes, strict=True)], dim)
        results = function(whole).split([shape[dim] for shape in shapes], dim)
    back = _exchange(results, whole_sizes, part_sizes, group)
    return [result.view_as(part) for result, part in zip(back, parts, strict=False)]


def _exchange(
    tensors: Sequence[Tensor], sent: list[int], received: list[int], group: dist.ProcessGroup
) -> list[Tensor]:
    """Send numbers to each process in turn, and receive as many from each as `received` says."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    out = flat.new_empty(sum(received))
    dist.all_to_all_single(out, flat, received, sent, group=group)
    return list(out.split(received))


def _shard_group(parameter: DTensor) -> dist.ProcessGroup:
    return parameter.device_mesh.get_group(parameter.device_mesh.ndim - 1)


def _sharded_dim(parameter: DTensor) -> int:
    placement = parameter.placements[-1]
    assert isinstance(placement, Shard), f"sharded as {parameter.placements}"
    return placement.dim


def _shapes_of_parts(parameter: DTensor, processes: int) -> list[list[int]]:
    dim, shape = _sharded_dim(parameter), list(parameter.shape)
    sizes = [Shard.local_shard_size_and_offset(shape[dim], processes, rank)[0] for rank in range(processes)]
    return [[*shape[:dim], size, *shape[dim + 1 :]] for size in sizes]

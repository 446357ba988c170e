"""How FSDP2 shards a module."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Shard

from lit_mm.mistake import Mistake


def make_mesh(kind: str, processes: int, copies: int, timeout: timedelta | None = None) -> DeviceMesh:
    """Lay out processes as shards, or as copies x shards.

    Args:
        kind: of device.
        processes: all of them.
        copies: of the model.
        timeout: of collective operations among copies and among shards.

    Raises:
        Mistake: the copies do not divide the processes.
    """
    if copies < 1 or processes % copies:
        raise Mistake(
            f"trainer.strategy.copies is {copies}, which does not divide the {processes} processes; "
            "use a divisor, or 1 to shard over all of them"
        )
    if copies == 1:
        return init_device_mesh(kind, (processes,), mesh_dim_names=("shard",))
    # `init_device_mesh` would give these groups PyTorch's own timeout of up to half an hour.
    ranks = torch.arange(processes).view(copies, -1)
    groups: list[Any] = [dist.new_subgroups_by_enumeration(x.tolist(), timeout=timeout)[0] for x in (ranks.T, ranks)]
    return DeviceMesh.from_group(groups, kind, mesh=ranks, mesh_dim_names=("copy", "shard"))


def share_random_state(device: torch.device) -> None:
    """Give the device's random generator the first process's state in all processes."""
    module = torch if device.type == "cpu" else torch.get_device_module(device)
    state = [module.get_rng_state()]
    dist.broadcast_object_list(state, src=0)
    module.set_rng_state(state[0])


@dataclass(frozen=True)
class Sharding:
    """Shards what of a module's parameters is not sharded yet.

    Args:
        mesh: of the processes, (shard,) or (copy, shard).
        half: whether parameters are gathered in bfloat16.
        reshard_after_forward: see `Fsdp2Strategy`.
        reduce_dtype: of gradients while they are summed over processes.
    """

    mesh: DeviceMesh
    half: bool
    reshard_after_forward: bool = True
    reduce_dtype: torch.dtype = torch.float32

    def __call__(self, module: nn.Module, last: bool = False) -> None:
        """In place; parameters become DTensors.

        Args:
            module: its parameters that are not sharded yet are gathered together.
            last: whether its forward pass is among the last, so that its parameters would be gathered for the backward
                pass as soon as they are dropped. They are kept.
        """
        fully_shard(
            module,
            mesh=self.mesh,
            reshard_after_forward=self.reshard_after_forward and not last,
            shard_placement_fn=self.placement,
            mp_policy=MixedPrecisionPolicy(
                param_dtype=torch.bfloat16 if self.half else None,
                reduce_dtype=self.reduce_dtype,
                cast_forward_inputs=False,
            ),
        )

    def placement(self, parameter: nn.Parameter) -> Shard:
        """Along the first dimension that the processes divide evenly.

        FSDP2 takes the first dimension by default: a stack of two matrices, text and visual, would lie on two
        processes, however many there are.
        """
        shards = self.mesh.size(self.mesh.ndim - 1)
        return Shard(next((dim for dim, size in enumerate(parameter.shape) if size % shards == 0), 0))

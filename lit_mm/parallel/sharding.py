"""How FSDP2 shards a module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import Shard


@dataclass(frozen=True)
class Sharding:
    """Shards what of a module's parameters is not sharded yet.

    Args:
        mesh: of the processes, (shard,) or (copy, shard).
        half: whether parameters are gathered in bfloat16 (gradients are summed in float32).
        reshard_after_forward: see `Fsdp2Strategy`.
        cpu_offload: see `Fsdp2Strategy`.
    """

    mesh: DeviceMesh
    half: bool
    reshard_after_forward: bool
    cpu_offload: bool

    def __call__(self, module: nn.Module) -> None:
        """In place; parameters become DTensors."""
        fully_shard(
            module,
            mesh=self.mesh,
            reshard_after_forward=self.reshard_after_forward,
            shard_placement_fn=self.placement,
            mp_policy=MixedPrecisionPolicy(
                param_dtype=torch.bfloat16 if self.half else None,
                reduce_dtype=torch.float32 if self.half else None,
                cast_forward_inputs=False,
            ),
            offload_policy=CPUOffloadPolicy() if self.cpu_offload else OffloadPolicy(),
        )

    def placement(self, parameter: nn.Parameter) -> Shard:
        """Along the first dimension that the processes divide evenly.

        FSDP2 takes the first dimension by default: a stack of two matrices, text and visual, would lie on two
        processes, however many there are.
        """
        shards = self.mesh.size(self.mesh.ndim - 1)
        return Shard(next((dim for dim, size in enumerate(parameter.shape) if size % shards == 0), 0))

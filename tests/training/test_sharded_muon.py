"""Muon on sharded matrices takes the step of one process, and the processes divide its work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import Replicate, distribute_tensor

from lit_mm.parallel.sharding import Sharding, make_mesh
from lit_mm.training import muon
from lit_mm.training.muon import Muon
from lit_mm.training.whole_matrices import has_whole_matrices
from tests.helpers.processes import on_processes

# As 4 processes cut them: rows, columns, unevenly, rows or columns within a stack; and stacks matrix by matrix, of which
# the last leaves the fourth process nothing.
CUT = ((24, 16), (24, 16), (6, 16), (7, 9), (2, 16, 40), (3, 5, 8))
UNCUT = ((8, 40, 16), (5, 3, 7))
OTHERS = ((7,), (3, 5))
STEPS, RESUMED = 5, 3


def values(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=generator) for shape in (*CUT, *UNCUT, *OTHERS)]


def optimizer_of(parameters: list[nn.Parameter]) -> Muon:
    hidden = len(CUT) + len(UNCUT)
    groups = [{"params": parameters[:hidden], "hidden": True}, {"params": parameters[hidden:]}]
    return Muon(groups, lr=0.01, hidden_lr=0.02, weight_decay=0.3)


def trained(sharding: Sharding | None) -> list[Tensor]:
    """Parameters after some steps, gathered; between two of them another optimizer takes over."""

    def placed(tensor: Tensor) -> Tensor:
        if sharding is None:
            return tensor
        copies = [Replicate()] * (sharding.mesh.ndim - 1)
        return distribute_tensor(tensor, sharding.mesh, [*copies, sharding.placement(nn.Parameter(tensor))])

    parameters = [nn.Parameter(placed(value)) for value in values(0)]
    assert sum(not has_whole_matrices(p) for p in parameters) >= (5 if sharding else 0), "in more than one turn"
    optimizer = optimizer_of(parameters)
    for step in range(1, STEPS + 1):
        if step == RESUMED:
            state = optimizer.state_dict()
            optimizer = optimizer_of(parameters)
            optimizer.load_state_dict(state)
        for parameter, gradient in zip(parameters, values(step), strict=True):
            parameter.grad = placed(gradient)
        optimizer.step()
    return [p.full_tensor().detach() if sharding is not None else p.detach() for p in parameters]  # type: ignore[operator]


def of_one_process(rank: int, copies: int) -> dict[str, Any]:
    seen = 0

    def counting(matrices: Tensor) -> Tensor:
        nonlocal seen
        seen += matrices.numel()
        return original(matrices)

    original, muon.orthogonalize = muon.orthogonalize, counting
    try:
        return {"parameters": trained(Sharding(make_mesh("cpu", 4, copies), half=False)), "orthogonalized": seen}
    finally:
        muon.orthogonalize = original


@pytest.mark.slow
@pytest.mark.parametrize("copies", [1, 2])
def test_sharded_matrices_step_as_whole_ones_do(copies: int, tmp_path: Path) -> None:
    whole = trained(None)
    processes = on_processes(of_one_process, 4, tmp_path, copies)
    for process in processes:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(process["parameters"], whole, strict=True))
    counts = [process["orthogonalized"] for process in processes]
    everything = STEPS * sum(torch.Size(shape).numel() for shape in (*CUT, *UNCUT))
    assert sum(counts) == copies * everything, "each matrix once in each copy of the model"
    assert max(counts) < 0.7 * everything, "not all by one process"

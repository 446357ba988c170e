"""Muon against PyTorch's, which knows single matrices only, and AdamW against PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mm.training.muon import Muon, orthogonalize

SHAPES = ((24, 16), (16, 24), (2, 16, 40), (5, 40, 16))


def parameters(shapes: Sequence[tuple[int, ...]]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def give_gradients(parameters: Sequence[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_stacks_step_as_pytorch_steps_each_of_their_matrices() -> None:
    ours = parameters(SHAPES)
    matrices = [[nn.Parameter(m.detach().clone()) for m in p.reshape(-1, *p.shape[-2:])] for p in ours]
    optimizer = Muon([{"params": ours, "hidden": True}], hidden_lr=0.02, weight_decay=0.3)
    single = torch.optim.Muon(
        [m for several in matrices for m in several], lr=0.02, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(5):
        give_gradients(ours, step)
        for parameter, several in zip(ours, matrices, strict=True):
            assert parameter.grad is not None
            for matrix, gradient in zip(several, parameter.grad.reshape(-1, *parameter.shape[-2:]), strict=True):
                matrix.grad = gradient.clone()
        optimizer.step()
        single.step()
    for parameter, several in zip(ours, matrices, strict=True):
        # Products of bfloat16 are rounded in another order.
        torch.testing.assert_close(parameter, torch.stack(list(several)).view_as(parameter), atol=5e-3, rtol=0)


def test_singular_values_become_about_one() -> None:
    for shape in SHAPES:
        matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        values = torch.linalg.svdvals(orthogonalize(matrices))
        assert values.min() > 0.3
        assert values.max() < 1.3
        u, _, v = torch.linalg.svd(matrices, full_matrices=False)
        nearest = u @ v
        cosine = (orthogonalize(matrices) * nearest).sum() / nearest.norm() / orthogonalize(matrices).norm()
        assert cosine > 0.95


def test_everything_else_steps_as_adamw_does() -> None:
    ours, theirs = parameters(((7,), (3, 5))), parameters(((7,), (3, 5)))
    optimizer = Muon([{"params": ours[:1], "weight_decay": 0.0}, {"params": ours[1:]}], lr=0.01, weight_decay=0.2)
    reference = torch.optim.AdamW(
        [{"params": theirs[:1], "weight_decay": 0.0}, {"params": theirs[1:]}],
        lr=0.01,
        betas=(0.9, 0.95),
        weight_decay=0.2,
    )
    for step in range(5):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimizer.step()
        reference.step()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other)


def test_it_goes_on_from_its_state() -> None:
    def steps(parameters: Sequence[nn.Parameter], optimizer: Muon, numbers: range) -> list[Tensor]:
        for number in numbers:
            give_gradients(parameters, number)
            optimizer.step()
        return [p.detach().clone() for p in parameters]

    def start() -> tuple[list[nn.Parameter], Muon]:
        made = parameters(SHAPES)
        return made, Muon([{"params": made[:3], "hidden": True}, {"params": made[3:]}])

    unbroken = steps(*start(), range(6))
    half, optimizer = start()
    steps(half, optimizer, range(3))
    again, resumed = start()
    for p, value in zip(again, half, strict=True):
        p.data.copy_(value)
    resumed.load_state_dict(optimizer.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(unbroken, steps(again, resumed, range(3, 6)), strict=True))


def test_the_kernel_of_a_convolution_steps_as_a_matrix_of_all_its_inputs() -> None:
    (kernel,), (matrix,) = parameters(((6, 4, 3, 3),)), parameters(((6, 36),))
    optimizer = Muon([{"params": [kernel, matrix], "hidden": True}], weight_decay=0.3)
    for step in range(3):
        give_gradients([kernel], step)
        assert kernel.grad is not None
        matrix.grad = kernel.grad.flatten(1).clone()
        optimizer.step()
    torch.testing.assert_close(kernel.flatten(1), matrix)

"""The path that a GPU takes, traced on a CPU: CUDA tensors without contents.

Whatever asks such a tensor for a value raises, as on a GPU it would make the host wait; and Dynamo traces what is
compiled as it would for CUDA. Only the kernels are missing: a graph is run operator by operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch._inductor.compile_fx
from torch import Tensor
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it, tensors may be made on "cuda", which is taken for a Hopper GPU."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, *_, **__: tensor)  # asks for its extremes
    for name in ("rand", "randn"):  # there are no generators of a GPU that is not there
        monkeypatch.setattr(torch, name, _without_generator(getattr(torch, name)))
    monkeypatch.setattr(torch, "Generator", _NoGenerator)
    monkeypatch.setattr(torch._inductor.compile_fx, "compile_fx", _run_by_operator)
    torch._dynamo.reset()
    counters.clear()
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
    torch._dynamo.reset()
    counters.clear()


class _NoGenerator:
    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device

    def manual_seed(self, seed: int) -> _NoGenerator:
        return self


def _without_generator(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *shape, generator=None, **settings: draw(*shape, **settings)


def _run_by_operator(graph: Any, inputs: list[Tensor], **_: Any) -> Any:
    return graph.forward

"""What processes hold, send and gather of a sharded model."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from lit_mm.backbone import ExpertFeedForward, SequenceLayout, Transformer
from lit_mm.flow.matching import FlowMatching
from lit_mm.mistake import Mistake
from lit_mm.model.heads import VisualTokens
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.module import LitMultimodal
from lit_mm.parallel import Fsdp2Strategy, Parallelize
from lit_mm.parallel.memory import BatchShape, fake_loss
from lit_mm.parallel.sharding import Sharding, make_mesh
from lit_mm.parallel.strategy import refuse_fsdp1
from lit_mm.training.optimization import parameter_groups
from lit_mm.vision import Rae
from tests.helpers.processes import on_processes

DEPTH, PROCESSES = 2, 2
SHAPE = BatchShape(rows=1, row_length=32, frames=2, tokens_per_frame=4, channels=8)


def built(sharding: Sharding | None, dtype: torch.dtype = torch.float32) -> MultimodalTransformer:
    layer = partial(ExpertFeedForward, experts=10, active=3, granularity=16)
    with torch.device("meta"):
        backbone = Transformer(64, 64, DEPTH, 4, 2, layer)
        model = MultimodalTransformer(backbone, 64, SHAPE.channels, compute_dtype=dtype)
    Parallelize()(model, torch.device("cpu"), sharding)
    return model


def whole(model: nn.Module) -> dict[str, Tensor]:
    state = model.state_dict()
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state.items()}


def names_by_group(model: nn.Module) -> list[list[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in parameter_groups(model)]


class Collectives(TorchDispatchMode):
    """Counts them by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = {"allgather": 0, "reduce_scatter": 0}

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for kind in self.counts:
            self.counts[kind] += operator.namespace == "c10d" and kind in operator.name()
        return operator(*args, **(kwargs or {}))


def collectives(model: nn.Module, reduce_gradients: Any) -> dict[str, int]:
    """Of two micro-batches, of which the second ends the step."""
    strategy = Fsdp2Strategy(reduce_gradients=reduce_gradients)
    strategy._lightning_module = SimpleNamespace(model=model)  # type: ignore[assignment]
    with Collectives() as counter:
        with strategy.block_backward_sync():
            fake_loss(model, SHAPE).backward()
        fake_loss(model, SHAPE).backward()
    return counter.counts


def in_half_precision(sharding: Sharding | None) -> dict[str, Tensor]:
    """What the model says of a batch, and how it is told to change."""
    torch.manual_seed(0)
    model, generator = built(sharding, torch.bfloat16), torch.Generator().manual_seed(1)
    index = torch.zeros(1, 32, dtype=torch.int64)
    tokens = torch.randint(64, index.shape, generator=generator)
    visual = VisualTokens(
        torch.randn(2, 4, 8, generator=generator), torch.tensor([0.3, 0.9]), torch.arange(8).view(2, 4), torch.arange(2)
    )
    with torch.autocast("cpu", torch.bfloat16):  # as Lightning has it around a step
        hidden = model.hidden(tokens, SequenceLayout(index.int(), index.int() - 1, index), visual).hidden
        losses = model.text_loss(hidden[0, 8:], tokens[0, 8:])
        velocity = model.velocity(hidden[:, :8].view(2, 4, -1))
    (losses.sum + velocity.square().sum()).backward()
    grad = model.backbone.layers[0].attention.query.weight.grad
    assert grad is not None
    grad = grad.full_tensor() if isinstance(grad, DTensor) else grad
    return {"hidden": hidden.detach(), "losses": losses.each, "grad": grad}


def of_one_process(rank: int) -> dict[str, Any]:
    sharding, copies = (Sharding(make_mesh("cpu", PROCESSES, copies), half=False) for copies in (1, PROCESSES))
    torch.manual_seed(rank)
    model = built(sharding)
    found: dict[str, Any] = {"sharded": whole(model), "groups": names_by_group(model)}
    torch.manual_seed(rank)
    found["copied"] = {
        name: t.to_local() if isinstance(t, DTensor) else t for name, t in built(copies).state_dict().items()
    }
    found["half"] = in_half_precision(Sharding(make_mesh("cpu", PROCESSES, 1), half=True))
    for when in ("micro_batch", "step"):
        found[when] = collectives(model, when)
        found[f"gradients by {when}"] = [p.grad.full_tensor() for p in model.parameters()]  # type: ignore[union-attr]
        model.zero_grad()
    return found


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Two, whose random generators have different seeds."""
    return on_processes(of_one_process, PROCESSES, tmp_path_factory.mktemp("processes"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sharded", "copied"])
def test_weights_are_those_of_the_first_process_s_seed(processes: list[dict[str, Any]], kind: str) -> None:
    torch.manual_seed(0)
    alone = built(None).state_dict()
    for process in processes:
        assert process[kind].keys() == alone.keys()
        assert all(torch.equal(process[kind][name], value) for name, value in alone.items())


@pytest.mark.slow
def test_half_precision_is_the_same_on_one_process_and_sharded(processes: list[dict[str, Any]]) -> None:
    alone = in_half_precision(None)
    assert alone["hidden"].dtype == torch.bfloat16
    assert alone["losses"].dtype == alone["grad"].dtype == torch.float32
    for process in processes:
        assert torch.equal(process["half"]["hidden"], alone["hidden"])
        assert torch.equal(process["half"]["losses"], alone["losses"])
        torch.testing.assert_close(process["half"]["grad"], alone["grad"], rtol=0.01, atol=1e-4)


@pytest.mark.slow
def test_parameters_are_in_the_groups_that_they_are_in_on_one_device(processes: list[dict[str, Any]]) -> None:
    groups = names_by_group(built(None))
    assert all(process["groups"] == groups for process in processes)
    assert all(groups), "none is empty"


@pytest.mark.slow
def test_gradients_travel_with_the_last_micro_batch_alone_if_so_configured(processes: list[dict[str, Any]]) -> None:
    units = DEPTH + 5  # embedding, visual input, blocks, norm and two heads
    for process in processes:
        assert process["micro_batch"]["reduce_scatter"] == 2 * units
        assert process["step"]["reduce_scatter"] == units
        for ours, theirs in zip(process["gradients by step"], process["gradients by micro_batch"], strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_what_the_backward_pass_begins_with_is_not_gathered_again(processes: list[dict[str, Any]]) -> None:
    once, twice = 3, DEPTH + 2  # norm and heads; embedding, visual input and blocks
    for process in processes:
        assert process["micro_batch"]["allgather"] == 2 * (once + 2 * twice)


def test_all_but_shards_is_moved_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU."""
    module = LitMultimodal(
        lambda vocabulary: Transformer(vocabulary, 64, 1, 4, 2),
        Rae(folder="rae_tiny"),
        128,
        flow=FlowMatching(statistics="rae_tiny"),
    )
    module.sampler.plugin = nn.BatchNorm1d(3)  # type: ignore[attr-defined]
    module.register_buffer("of_a_plugin", torch.zeros(1))
    strategy = Fsdp2Strategy()
    strategy._lightning_module = strategy.model = module
    monkeypatch.setattr(Fsdp2Strategy, "root_device", torch.device("meta"))
    strategy.model_to_device()
    held = [*module.named_parameters(), *module.named_buffers()]
    assert {name.partition(".")[0] for name, _ in held} >= {"vision", "flow", "of_a_plugin"}
    assert {name for name, tensor in held if not tensor.is_meta} == set()
    assert module.device.type == "meta"


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp_cpu_offload"])
def test_fsdp1_is_refused(strategy: str) -> None:
    with pytest.raises(Mistake, match=f"trainer.strategy is '{strategy}', .* use 'fsdp2'"):
        refuse_fsdp1(strategy)
    for other in ("auto", "ddp", "fsdp2", Fsdp2Strategy(), None):
        refuse_fsdp1(other)

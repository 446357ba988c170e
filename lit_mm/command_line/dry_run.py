"""A step of a run on many processes, in one process and without computing anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.parallel.memory import GIB, BatchShape, estimate, fake_loss, fake_model
from lit_mm.parallel.parallelize import Parallelize, is_last, parts
from lit_mm.parallel.sharding import Sharding, make_mesh
from lit_mm.parallel.strategy import Fsdp2Strategy
from lit_mm.training.flops import TrainingFlops, peak

if TYPE_CHECKING:
    from lit_mm.module import LitMultimodal


class ShardedStep(NamedTuple):
    """What one of many processes holds.

    Attributes:
        parameters: in its shards.
        peak: bytes, of a forward and backward pass and two moments for each of its parameters.
    """

    parameters: int
    peak: int


def sharded_step(
    build: Callable[[], MultimodalTransformer],
    shape: BatchShape,
    parallelize: Parallelize,
    processes: int,
    copies: int = 1,
    reshard_after_forward: bool = True,
) -> ShardedStep:
    """Shard a model over processes that are not there, and let it make one step in `bf16-mixed`.

    FSDP2 and autograd do all they do in a run, with tensors that have no contents and collectives that send nothing.

    Args:
        build: makes the model.
        shape: of the batch of one process.
        parallelize: activation checkpointing.
        processes: all of them.
        copies: of the model, see `Fsdp2Strategy`.
        reshard_after_forward: see `Fsdp2Strategy`.

    Raises:
        Mistake: the copies do not divide the processes.
    """
    dist.init_process_group("fake", rank=0, world_size=processes, store=FakeStore())
    try:
        sharding = Sharding(make_mesh("cpu", processes, copies), True, reshard_after_forward)
        with FakeTensorMode(allow_non_fake_inputs=True):
            model = fake_model(build, torch.float32)
            replace(parallelize, compile=False).wrap_blocks(model)
            for part, _ in parts(model):
                sharding(part, last=is_last(model, part))
            step = _Step(model, shape)
            sharding(step)
            own = sum(p.to_local().numel() for p in model.parameters() if isinstance(p, DTensor))
            tracker = FSDPMemTracker(step)
            with tracker:
                step().backward()
        (peak,) = tracker.get_tracker_snapshot("peak").values()
        return ShardedStep(own, peak["Total"] + 8 * own)
    finally:
        dist.destroy_process_group()


class _Step(nn.Module):
    """A forward pass that calls the model's methods, since the tracker follows one call of one module."""

    def __init__(self, model: MultimodalTransformer, shape: BatchShape) -> None:
        super().__init__()
        self.model, self.shape = model, shape

    def forward(self) -> Tensor:
        return fake_loss(self.model, self.shape)


class Run(NamedTuple):
    """What a run's step depends on beside the model.

    Attributes:
        rows: of the batch of one process.
        row_length: positions in a row.
        devices: of a node.
        nodes: of the run.
        precision: of the trainer.
        strategy: of the trainer, an object or a name.
        averaged: whether averaged weights are kept.
        steps: of the whole run; -1 without an end.
    """

    rows: int
    row_length: int
    devices: int
    nodes: int
    precision: str
    strategy: object
    averaged: bool
    steps: int


def report(module: LitMultimodal, run: Run) -> None:
    """Print what a configured run would take: memory of a process, operations of a step, time on H100s.

    Rows are taken to be half text, half frames.
    """
    rows, row_length = run.rows, run.row_length
    processes, vision = run.devices * run.nodes, module.vision
    shape = BatchShape(
        rows=rows,
        row_length=row_length,
        frames=rows * row_length // (2 * (vision.num_tokens + 2)),
        tokens_per_frame=vision.num_tokens,
        channels=vision.channels,
        read_channels=vision.read_channels,
    )
    sharded = Fsdp2Strategy() if run.strategy == "fsdp2" else run.strategy
    copies = sharded.copies_on(run.nodes) if isinstance(sharded, Fsdp2Strategy) else processes
    found = estimate(
        module.new_model,
        shape,
        module.parallelize,
        shards=processes // copies if isinstance(sharded, Fsdp2Strategy) else None,
        precision=run.precision,
        averaged=run.averaged,
        tokenizer=vision,
    )
    console = Console(highlight=False)
    console.print(found.table())
    if isinstance(sharded, Fsdp2Strategy):
        step = sharded_step(
            module.new_model, shape, module.parallelize, processes, copies, sharded.reshard_after_forward
        )
        console.print(
            f"one step in bf16-mixed, sharded over {processes} processes ({copies} x {processes // copies}): each has "
            f"{step.parameters / 1e6:,.1f} M parameters and needs {step.peak / GIB:.1f} GiB beside the tokenizer"
        )
    with torch.device("meta"):
        flops = TrainingFlops.of(module.new_model())
    positions = rows * row_length * processes
    of_step = positions * (flops.position + flops.predicted / 2 + (flops.visual + flops.drawn) / 2)
    of_step += rows * processes * flops.pair * row_length**2 / 2
    console.print(f"{positions:,} positions and {of_step:.3g} operations a step, attention to whole rows included")
    if run.steps > 0:
        seconds = run.steps * of_step / (processes * 0.4 * peak("H100"))  # type: ignore[operator]
        console.print(f"{run.steps:,} steps would take {duration(seconds)} on {processes} H100 at 40 % of their peak")


def duration(seconds: float) -> str:
    """In the largest unit that it has two of."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            value = seconds / length
            return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"

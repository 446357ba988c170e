"""How much memory a training step will need, found without computing anything."""

from __future__ import annotations

import resource
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from rich.table import Table
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from lit_mm.backbone.layout import SequenceLayout
from lit_mm.model.heads import VisualTokens
from lit_mm.model.multimodal import MultimodalTransformer, at_positions
from lit_mm.parallel.parallelize import Parallelize, parts
from lit_mm.precision import compute_dtype

GIB = 2**30


@dataclass(frozen=True)
class BatchShape:
    """The shapes that a step's memory depends on.

    Args:
        rows: of the batch of one process.
        row_length: positions in a row.
        frames: pictures in the batch.
        tokens_per_frame: visual tokens of a picture.
        channels: of a token that is drawn.
        read_channels: of a token that is read, where it is of another kind.
    """

    rows: int
    row_length: int
    frames: int
    tokens_per_frame: int
    channels: int
    read_channels: int | None = None


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one process.

    Attributes:
        parameters: this process's share.
        gradients: likewise.
        optimizer: two moments for each parameter.
        averaged: averaged weights, if there are any.
        tokenizer: the frozen visual tokenizer, whole.
        gathered: parameters and gradients of the blocks that are whole at one time; or, without sharding, copies of
            the parameters in half precision.
        activations: the most that is kept for, and made in, the backward pass.
    """

    parameters: int
    gradients: int
    optimizer: int
    averaged: int
    tokenizer: int
    gathered: int
    activations: int

    @property
    def total(self) -> int:
        """Of all."""
        return sum(getattr(self, field.name) for field in fields(self))

    def table(self) -> Table:
        """For a person."""
        shown = Table("memory of a process, estimated", "GiB")
        shown.columns[1].justify = "right"
        for field in fields(self):
            shown.add_row(field.name, f"{getattr(self, field.name) / GIB:.3f}")
        shown.add_row("all", f"{self.total / GIB:.3f}", style="bold")
        return shown


def estimate(
    build: Callable[[], MultimodalTransformer],
    shape: BatchShape,
    parallelize: Parallelize,
    shards: int | None,
    precision: str,
    averaged: bool,
    tokenizer: nn.Module,
) -> MemoryEstimate:
    """Estimate for one process.

    Args:
        build: makes the model.
        shape: of the batch of one process.
        parallelize: activation checkpointing.
        shards: processes that parameters are shared out over; None without sharding.
        precision: of the trainer, see `lit_mm.precision.compute_dtype`.
        averaged: whether averaged weights are kept.
        tokenizer: the frozen visual tokenizer.
    """
    with torch.device("meta"):
        model = build()
    sizes = [p.numel() for p in model.parameters()]
    units = [sum(p.numel() for p in part.parameters()) for part, _ in parts(model)]
    own = sum(-(-n // (shards or 1)) for n in sizes)
    half = compute_dtype(precision) != torch.float32
    used = 2 if half else 4
    # Sharded, two units are gathered while the second is waited for, and gradients of one are whole before they are
    # shared out. Otherwise, half precision keeps copies of all parameters.
    whole = (2 * used + 4) * max(units) if shards is not None else 2 * sum(sizes) * half
    return MemoryEstimate(
        parameters=4 * own,
        gradients=4 * own,
        optimizer=8 * own,
        averaged=4 * own if averaged else 0,
        tokenizer=sum(t.numel() * t.element_size() for t in [*tokenizer.parameters(), *tokenizer.buffers()]),
        gathered=whole,
        activations=activations(build, shape, parallelize, half=half),
    )


def activations(
    build: Callable[[], MultimodalTransformer], shape: BatchShape, parallelize: Parallelize, half: bool
) -> int:
    """Bytes of the most that one forward and backward pass keeps and makes beside parameters and their gradients.

    The passes are made with tensors that have no contents. A float32 run is counted in bfloat16 and doubled, since
    PyTorch's rule for the shapes of grouped products knows that type alone; that is up to 1.4 times too much, as what
    is float32 in both is doubled too.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = fake_model(build, torch.bfloat16)
        replace(parallelize, compile=False).wrap_blocks(model)
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(_drop_gradient)
        tracker = MemTracker()
        tracker.track_external(model)
        warnings.filterwarnings("ignore", message="Expected a tensor or a traceable")  # the tracker's, at its end
        with tracker:
            fake_loss(model, shape).backward()
        (peak,) = tracker.get_tracker_snapshot("peak").values()
    kept = sum(peak[kind] for kind in peak if str(getattr(kind, "value", kind)) in ("Activation", "Temp", "Gradient"))
    return kept if half else 2 * kept


def fake_model(build: Callable[[], MultimodalTransformer], dtype: torch.dtype) -> MultimodalTransformer:
    """A model whose parameters have no contents; to be made, and used, within a FakeTensorMode."""
    with torch.device("meta"):
        model = build()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module.register_parameter(name, nn.Parameter(torch.empty(parameter.shape, dtype=dtype)))
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, torch.empty(buffer.shape, dtype=buffer.dtype))
    model.compute_dtype = torch.bfloat16
    model.backbone.attention_backend = "sdpa"  # keeps what FlexAttention keeps, and needs no GPU
    return model


def fake_loss(model: MultimodalTransformer, shape: BatchShape) -> torch.Tensor:
    """Of a batch of such a shape, half of its frames drawn."""
    positions = shape.rows * shape.row_length
    text = positions - shape.frames * shape.tokens_per_frame
    index = torch.zeros(shape.rows, shape.row_length, dtype=torch.int64)
    frame = torch.zeros(shape.frames, shape.tokens_per_frame, dtype=torch.int64)
    read = None if shape.read_channels is None else torch.zeros(*frame.shape, shape.read_channels)
    drawn, targets = torch.zeros(-(-shape.frames // 2), dtype=torch.int64), torch.zeros(text, dtype=torch.int64)
    latents = torch.zeros(*frame.shape, shape.channels)
    visual = VisualTokens(latents, torch.zeros(shape.frames), frame, drawn, read)
    output = model.hidden(index, SequenceLayout(index.int(), index.int(), index), visual)
    loss = model.text_loss(at_positions(output.hidden, targets), targets).sum
    return loss + model.velocity(at_positions(output.hidden, frame[drawn])).sum() + output.expert_loss


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None  # where parameters are shared out, whole gradients do not stay


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that was allocated on a GPU so far, or that this process has held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

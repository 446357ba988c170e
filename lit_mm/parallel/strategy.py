"""Fully sharded data parallelism through Lightning: `--trainer.strategy fsdp2`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.fabric.strategies.model_parallel import _load_raw_module_state
from lightning.fabric.utilities.load import _METADATA_FILENAME
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, StrategyRegistry
from torch.distributed.checkpoint import async_save, save
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer

from lit_mm.mistake import Mistake
from lit_mm.parallel.background import Background
from lit_mm.parallel.checkpoint_checks import check_shapes, check_tokenizers, has_average, shapes_of
from lit_mm.parallel.checkpoint_files import (
    CheckpointFiles,
    by_name,
    by_number,
    is_sharded,
    part_of,
    put_in_place,
    read_header,
    reading,
    refusing_to_write,
    remove,
    shapes,
    to_bytes,
)
from lit_mm.parallel.sharding import Sharding, make_mesh

Copies = int | Literal["nodes"]


class Fsdp2Strategy(ModelParallelStrategy):
    """FSDP2: parameters, gradients and optimizer states are shared out over all processes.

    Works on GPUs and, with gloo, on CPUs. In `bf16-mixed` precision parameters are gathered in bfloat16 and the
    optimizer works on float32 shards.

    Args:
        copies: of the model. Each is sharded over world size / copies processes, and gradients are averaged over the
            copies (HSDP): `nodes` keeps one copy in every node, so that only gradients travel between nodes.
        reshard_after_forward: whether gathered parameters of a block are dropped after its forward pass and gathered
            again for the backward pass: less memory, more communication.
        reduce_dtype: of gradients while they are summed over processes; `bfloat16` halves what travels and rounds each
            sum.
        reduce_gradients: when gradients of `accumulate_grad_batches` are summed over processes. `micro_batch`: after
            each, so that a process keeps its shard alone. `step`: after the last, so that less travels; a process keeps
            whole gradients until then.
        save_distributed_checkpoint: whether every process writes its own shard into a folder; otherwise the first
            gathers all and writes one file. Either is read by any number of processes.
        timeout: of a collective operation, `h:m:s` in YAML: after so long the others notice that a host is gone.
    """

    def __init__(
        self,
        copies: Copies = 1,
        reshard_after_forward: bool = True,
        reduce_dtype: Literal["float32", "bfloat16"] = "float32",
        reduce_gradients: Literal["micro_batch", "step"] = "micro_batch",
        save_distributed_checkpoint: bool = True,
        timeout: timedelta = timedelta(minutes=30),
    ) -> None:
        super().__init__(save_distributed_checkpoint=save_distributed_checkpoint, timeout=timeout)
        self.copies, self.reshard_after_forward = copies, reshard_after_forward
        self.reduce_dtype, self.reduce_gradients = reduce_dtype, reduce_gradients
        self._save_group: Any = None  # of its own: collectives of two threads must not mix

    def setup_environment(self) -> None:
        """Start the process group and lay out the mesh: shards, or copies x shards."""
        self._setup_distributed()
        assert self.lightning_module is not None
        copies = self.copies_on(self.num_nodes)
        self._device_mesh = make_mesh(self.root_device.type, self.world_size, copies, self._timeout)
        self.lightning_module._device_mesh = self._device_mesh

    def copies_on(self, nodes: int) -> int:
        """Copies of the model on so many nodes."""
        return nodes if self.copies == "nodes" else self.copies

    @property
    def shards(self) -> int:
        """Processes that a copy of the model is sharded over."""
        return self.device_mesh.size(self.device_mesh.ndim - 1)

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Every process is a data-parallel one."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    @property
    def sharding(self) -> Sharding:
        """How modules are sharded."""
        half = self.precision_plugin.precision == "bf16-mixed"
        return Sharding(self.device_mesh, half, self.reshard_after_forward, getattr(torch, self.reduce_dtype))

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """What Lightning enters for micro-batches that do not end a step."""
        assert self.lightning_module is not None
        model = self.lightning_module.model
        if self.reduce_gradients == "micro_batch" or not isinstance(model, FSDPModule):
            yield
            return
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load weights and optimizer states into the shards; a checkpoint of another model is refused before.

        Returns:
            All else that the checkpoint holds.
        """
        path = Path(self.broadcast(str(checkpoint_path)))
        module: Any = self.lightning_module
        check_tokenizers(read_header(path), module.vision.fingerprint(), module.tokenizer.fingerprint())
        saved = shapes(path)
        check_shapes(saved, shapes_of(module.state_dict()))
        if module.averaged is None or has_average(saved):
            return self._load(path)
        average, module.averaged = module.averaged, None
        checkpoint = self._load(path)
        module.averaged = average
        module.restart_average()
        return checkpoint

    def _load(self, path: Path) -> dict[str, Any]:
        with reading(path):
            return super().load_checkpoint(path, weights_only=False) if is_sharded(path) else self._load_file(path)

    def _load_file(self, path: Path) -> dict[str, Any]:
        # Lightning would number parameters as the model has them; optimizers number them group by group.
        assert self.model is not None
        checkpoint = read_header(path)
        _load_raw_module_state(checkpoint.pop("state_dict"), self.model, strict=False)
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        for optimizer, state in zip(self.optimizers, checkpoint.pop("optimizer_states", ()), strict=False):
            ordered = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
            options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
            set_optimizer_state_dict(self.model, optimizer, by_name(state, ordered), options=options)
        return checkpoint

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Shards by name; or, gathered by the first process, all of it by number as on one device."""
        if self._save_distributed_checkpoint:
            return super().optimizer_state(optimizer)
        assert self.model is not None
        plain = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_optimizer_state_dict(self.model, plain, options=options)
        return by_number(state) if self.is_global_zero else {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Write beside the old checkpoint, and put it in its place only when all processes are done.

        Raises:
            Mistake: it could not be written; what was there before is as it was.
        """
        path = Path(self.broadcast(str(filepath)))
        if not self._save_distributed_checkpoint:
            if self.is_global_zero:
                self.checkpoint_io.save_checkpoint(checkpoint, path)
            return
        state = {"state_dict": checkpoint.pop("state_dict")}
        state |= {f"optimizer_{i}": value for i, value in enumerate(checkpoint.pop("optimizer_states", []))}
        io = self.checkpoint_io
        background = io.background if isinstance(io, CheckpointFiles) else Background(False)
        background.finish()  # no more than one copy in memory
        part = part_of(path)
        if self.is_global_zero:
            remove(part)
        self.barrier()
        write: Any = partial(save, state, checkpoint_id=part)
        if background.enabled:
            write = self._save_later(state, part)
        background.run(partial(self._complete, path, to_bytes(checkpoint), write))
        if not background.enabled:
            self.barrier()

    def _save_later(self, state: dict[str, Any], part: Path) -> Callable[[], Any]:
        if self._save_group is None:
            self._save_group = dist.new_group(backend="gloo")
        future: Any = async_save(state, checkpoint_id=part, process_group=self._save_group)
        return future.result

    def _complete(self, path: Path, header: bytes, write: Callable[[], Any]) -> None:
        part = part_of(path)
        try:
            with refusing_to_write(path):
                write()
                if self.is_global_zero:
                    (part / _METADATA_FILENAME).write_bytes(header)
                    put_in_place(part, path)
        finally:
            if self.is_global_zero:
                remove(part)


def refuse_fsdp1(strategy: object) -> None:
    """FSDP1 flattens parameters, so that neither matrices nor their shapes are left to be told apart.

    Raises:
        Mistake: it is what `trainer.strategy` asks for.
    """
    if isinstance(strategy, FSDPStrategy) or strategy in FSDPStrategy.get_registered_strategies():
        name = strategy if isinstance(strategy, str) else type(strategy).__name__
        raise Mistake(f"trainer.strategy is '{name}', PyTorch's first FSDP, whose successor is here: use 'fsdp2'")


StrategyRegistry.register("fsdp2", Fsdp2Strategy, description="FSDP2 over all processes, on GPUs or CPUs")

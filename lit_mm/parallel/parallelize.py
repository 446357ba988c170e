"""Activation checkpointing, compilation and sharding of the model, in this order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from lit_mm.mistake import Mistake
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.parallel.fresh_weights import check_all_materialised, materialise
from lit_mm.parallel.sharding import Sharding, share_random_state

Recomputed = Literal["none", "all", "selective"]

_PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten._grouped_mm.default,
    torch.ops.lit_mm.float32_grouped_mm.default,
}
# Results of these are kept by selective checkpointing: they take most of the time to compute again, and the choice of
# experts must not come out otherwise.
_KEPT = _PRODUCTS | {
    torch.ops.aten.topk.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.lit_mm.block_sparse_attention.default,
    torch.ops.higher_order.flex_attention,
    torch.ops.higher_order.inductor_compiled_code,  # FlexAttention in a block that is not compiled
}


@dataclass
class Parallelize:
    """What is done to the blocks before they are sharded.

    Args:
        recompute: activation checkpointing: `all` computes the inside of blocks again in the backward pass; `selective`
            keeps the results of matrix products and attention and computes only the rest again; `none` keeps
            everything.
        every: of how many blocks one is checkpointed; 1 checkpoints all of them.
        compile: whether each block is compiled, in place, so that names of parameters stay as they are.
    """

    recompute: Recomputed = "none"
    every: int = 1
    compile: bool = False

    def __post_init__(self) -> None:
        if self.every < 1:
            raise Mistake(f"model.parallelize.every is {self.every}; use 1 to checkpoint every block, or more")

    def __call__(self, model: MultimodalTransformer, device: torch.device, shard: Sharding | None = None) -> None:
        """Prepare a model that was built on the meta device, and give it its weights.

        One part after another gets storage, then weights, and is sharded before the next: no process ever holds the
        whole model, and the weights of a seed are the same however many processes there are. Where they have different
        seeds, that of the first counts.

        Args:
            model: on the meta device.
            device: where its parameters go.
            shard: shards one module over the processes; None on one process, or where each has a whole model.

        Raises:
            Mistake: a parameter or a buffer gets no first value.
        """
        self.wrap_blocks(model)
        if shard is not None:
            share_random_state(device)
        for part, reset in parts(model):
            materialise(part, reset, device)
            if shard is not None:
                shard(part, last=is_last(model, part))
        check_all_materialised(model)
        if shard is not None:
            shard(model)  # has no parameters of its own left; it makes one tree of the parts
            gather_in_methods(model)

    def wrap_blocks(self, model: MultimodalTransformer) -> None:
        """Let blocks compute again what they do not keep, and compile them."""
        keep = partial(create_selective_checkpoint_contexts, partial(_policy, model.backbone.dim))
        contexts: dict[str, Any] = {} if self.recompute == "all" else {"context_fn": keep}
        for number, block in enumerate(model.backbone.blocks):
            if self.recompute != "none" and number % self.every == 0:
                block.forward = _checkpointed(block.forward, contexts)  # type: ignore[method-assign]
            if self.compile:
                block.compile(fullgraph=True)  # a break, or one compilation too many, is an error


def _checkpointed(forward: Callable[..., Any], contexts: dict[str, Any]) -> Callable[..., Any]:
    # A plain function: Dynamo starts at the next Python frame, and would find none of ours behind a `partial`.
    def checkpointed(*args: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **contexts)

    return checkpointed


def _policy(dim: int, context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    if operator not in _KEPT:
        return CheckpointPolicy.PREFER_RECOMPUTE
    if operator in _PRODUCTS and args[1].shape[-1] == dim != args[1].shape[-2]:
        return CheckpointPolicy.PREFER_RECOMPUTE  # from a feed-forward's width to the model's: no gradient needs it
    return CheckpointPolicy.MUST_SAVE


def parts(model: MultimodalTransformer) -> Iterator[tuple[nn.Module, Callable[[], None]]]:
    """Every part of the model, each a unit of sharding, and what gives it fresh weights."""
    backbone = model.backbone
    yield backbone.embedding, backbone.reset_embedding
    for block in backbone.blocks:
        yield block, partial(backbone.reset_block, block)
    yield backbone.norm, backbone.norm.reset_parameters
    yield model.visual_input, model.visual_input.reset_parameters
    yield model.velocity_head, model.velocity_head.reset_parameters
    yield model.text_head, model.text_head.reset_parameters


def is_last(model: MultimodalTransformer, part: nn.Module) -> bool:
    """Whether it is one of the parts that the backward pass begins with."""
    return part in (model.backbone.norm, model.velocity_head, model.text_head)


def gather_in_methods(model: MultimodalTransformer) -> None:
    """Let every method that leads to sharded parameters gather them, as a forward pass does."""
    for method in ("hidden", "text_loss", "logits", "velocity"):
        register_fsdp_forward_method(model, method)
    register_fsdp_forward_method(model.text_head, "logits")


def tensors(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers; of a sharded model, this process's shards."""
    found = [*model.parameters(), *model.buffers()]
    return [t.data.to_local() if isinstance(t.data, DTensor) else t.data for t in found]

"""Attention on a CPU that skips what nobody may attend to: each block of queries reads its own range of keys.

PyTorch's CPU kernel computes every pair of a row and masks afterwards. In a row of packed documents two thirds of the
pairs or more are masked, the more the longer the row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 64  # queries that share a range of keys

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


def key_ranges(document: Tensor, frame: Tensor) -> Tensor:
    """The first key that any query of a block may attend to, and the one behind the last.

    Args:
        document: (B, L) integers, alike where tokens stand side by side and belong to one document.
        frame: (B, L) likewise for frames; text and padding belong to none and are each other than those beside them.

    Returns:
        (B, blocks, 2) int64.
    """
    length = document.shape[1]
    index = torch.arange(length).expand_as(document)
    begins = pad(document[:, 1:] != document[:, :-1], (1, 0), value=True)
    ends = pad(frame[:, 1:] != frame[:, :-1], (0, 1), value=True)
    first = index.where(begins, 0).cummax(1).values
    last = index.where(ends, length).flip(1).cummin(1).values.flip(1)
    missing = -length % BLOCK
    firsts = pad(first, (0, missing), value=length).unflatten(1, (-1, BLOCK)).amin(2)
    lasts = pad(last, (0, missing)).unflatten(1, (-1, BLOCK)).amax(2)
    return torch.stack((firsts, lasts + 1), -1)


def block_slices(ranges: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Rows, queries and keys of each block; rows of one layout, such as a long text each, share their blocks."""
    alike = bool((ranges == ranges[:1]).all())
    for rows in [slice(0, len(ranges))] if alike else [slice(row, row + 1) for row in range(len(ranges))]:
        for number, (first, last) in enumerate(ranges[rows.start].tolist()):
            yield rows, slice(number * BLOCK, (number + 1) * BLOCK), slice(first, last)


# A custom operator, since the ranges are other ones in every batch: torch.compile would compile each of them anew.
@torch.library.custom_op("lit_mm::block_sparse_attention", mutates_args=(), device_types="cpu")
def block_sparse_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, ranges: Tensor
) -> tuple[Tensor, Tensor]:
    """Grouped-query attention, in float32 where the inputs are of half precision, in which the kernel is no faster.

    Args:
        query: (B, heads, L, head_dim).
        key: (B, kv_heads, L, head_dim).
        value: as `key`.
        bias: (pairs,) float32, added to scores: 0, or minus infinity where there is nothing to attend to; of one block
            after the other, by queries, then keys.
        ranges: of `key_ranges`.

    Returns:
        (B, heads, L, head_dim) like `query`, and (B, heads, L) log-sum-exps of the scores.
    """
    out, lse = torch.empty_like(query), _lse_of(query)
    by_query, by_key = (_full(query), out, lse), (_full(key), _full(value))
    for (q, o, lse_of_block), (k, v), mask in _views(by_query, by_key, bias.to(lse.dtype), ranges):
        result = _forward(q, k, v, attn_mask=mask)
        o.copy_(result[0])
        lse_of_block.copy_(result[1])
    return out, lse


@block_sparse_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, ranges: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query), _lse_of(query)


@torch.library.custom_op("lit_mm::block_sparse_attention_backward", mutates_args=(), device_types="cpu")
def _gradients(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    bias: Tensor,
    ranges: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_query, grad_key, grad_value = (torch.zeros_like(x, dtype=lse.dtype) for x in (query, key, value))
    by_query = _full(query), _full(out), lse, _full(grad), grad_query
    by_key = _full(key), _full(value), grad_key, grad_value
    for (q, o, sums, g, gq), (k, v, gk, gv), mask in _views(by_query, by_key, bias.to(lse.dtype), ranges):
        result = _backward(g, q, k, v, o, sums, 0.0, False, attn_mask=mask)
        gq.copy_(result[0])
        gk += result[1]
        gv += result[2]
    return grad_query.to(query.dtype), grad_key.to(key.dtype), grad_value.to(value.dtype)


@_gradients.register_fake
def _(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, bias, ranges = inputs
    ctx.save_for_backward(query, key, value, *output, bias, ranges)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_gradients(grad, *ctx.saved_tensors), None, None


block_sparse_attention.register_autograd(_differentiate, setup_context=_save)


def _lse_of(query: Tensor) -> Tensor:
    return _full(query.new_empty(query.shape[:3]))


def _full(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _views(
    by_query: Sequence[Tensor], by_key: Sequence[Tensor], bias: Tensor, ranges: Tensor
) -> Iterator[tuple[list[Tensor], list[Tensor], Tensor]]:
    """Of each block what belongs to its queries, to the keys that they read (dimension 2), and its mask."""
    at = 0
    for rows, queries, keys in block_slices(ranges):
        of_queries = [t[rows, :, queries] for t in by_query]
        shape = len(of_queries[0]), 1, of_queries[0].shape[2], keys.stop - keys.start
        mask = bias.narrow(0, at, math.prod(shape)).view(shape)
        at += mask.numel()
        yield of_queries, [t[rows, :, keys] for t in by_key], mask

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lit_mm.backbone import SequenceLayout
from lit_mm.backbone.block_sparse import block_sparse_attention
from lit_mm.backbone.masks import BlockSparseMask, build_mask


def inputs(length: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = ((2, length, heads, 16) for heads in (4, 2, 2))
    return [torch.randn(s, generator=generator).to(dtype).transpose(1, 2).requires_grad_() for s in shapes]


def masks(random_layout, length: int, seed: int = 5) -> tuple[BlockSparseMask, Tensor]:
    """The mask, and the same as truth values."""
    layout = random_layout(seed, rows=2, length=length)
    return build_mask(layout, "blocks"), build_mask(layout, "sdpa").allowed


def compare(mask: BlockSparseMask, allowed: Tensor, dtype: torch.dtype, near: float) -> None:
    """Values and gradients under the mask beside those of PyTorch under the same truth values."""
    length = allowed.shape[-1]
    ours, theirs = inputs(length, dtype), inputs(length, dtype)
    got, wanted = mask.attend(*ours), scaled_dot_product_attention(*theirs, attn_mask=allowed, enable_gqa=True)
    torch.testing.assert_close(got, wanted, rtol=near, atol=near)
    assert got.stride() == ours[0].stride()
    gradient = torch.randn_like(wanted)
    got.backward(gradient)
    wanted.backward(gradient)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=10 * near, atol=near)


@pytest.mark.parametrize("length", [48, 64, 190, 384])
def test_values_and_gradients_are_those_of_pytorch_under_the_same_mask(random_layout, length):
    compare(*masks(random_layout, length), torch.float32, 1e-5)


def test_double_precision_stays_double(random_layout):
    compare(*masks(random_layout, 190), torch.float64, 1e-12)


def test_rows_that_share_their_blocks_keep_masks_of_their_own():
    """Each row is one document of 128 positions; only where its frame lies within the first block differs."""
    frame = torch.full((2, 128), -1, dtype=torch.int32)
    frame[0, 8:24] = frame[1, 30:46] = 0
    layout = SequenceLayout(torch.zeros_like(frame), frame, torch.arange(128).expand(2, -1))
    mask = build_mask(layout, "blocks")
    assert torch.equal(mask.ranges[0], mask.ranges[1])
    compare(mask, build_mask(layout, "sdpa").allowed, torch.float32, 1e-5)


def test_bfloat16_is_as_near_to_exact_as_rounding_the_result_allows(random_layout):
    mask, allowed = masks(random_layout, 190)
    half = inputs(190, torch.bfloat16)
    exact = [x.detach().double().requires_grad_() for x in half]
    got = mask.attend(*half)
    wanted = scaled_dot_product_attention(*exact, attn_mask=allowed, enable_gqa=True)
    gradient = torch.randn_like(got)
    got.backward(gradient)
    wanted.backward(gradient.double())
    torch.testing.assert_close(got.double(), wanted, rtol=2**-8, atol=1e-4)
    for one, other in zip(half, exact, strict=True):
        assert one.grad.dtype == torch.bfloat16
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=2**-6, atol=2e-2)


@pytest.mark.parametrize("length", [190, 384])
def test_a_block_reads_all_that_its_queries_may_attend_to_and_no_more(random_layout, length):
    mask, allowed = masks(random_layout, length)
    for row, of_row in zip(mask.ranges.tolist(), allowed[:, 0], strict=True):
        for number, (first, last) in enumerate(row):
            seen = of_row[64 * number : 64 * (number + 1)].any(0).nonzero().flatten().tolist()
            assert (first, last) == (seen[0], seen[-1] + 1)


@pytest.mark.filterwarnings("ignore")
def test_the_operator_keeps_what_pytorch_asks_of_operators(random_layout):
    mask, _ = masks(random_layout, 90)
    torch.library.opcheck(block_sparse_attention, (*inputs(90), mask.bias, mask.ranges))


@pytest.mark.slow
def test_compiled_once_for_all_documents(random_layout):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    attend = torch.compile(lambda *args: block_sparse_attention(*args)[0].square().sum(), backend=counter)
    for seed in range(4):
        mask, _ = masks(random_layout, 190, seed)
        x = inputs(190)
        attend(*x, mask.bias, mask.ranges).backward()
        assert all(t.grad is not None for t in x)
    assert counter.frame_count == 1

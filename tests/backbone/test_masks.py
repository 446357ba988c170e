from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lit_mm.backbone import SequenceLayout
from lit_mm.backbone.masks import build_mask


def brute_force(layout: SequenceLayout, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention pair by pair in Python: every rule of the mask spelled out."""
    documents, frames = layout.document_ids.tolist(), layout.frame_ids.tolist()
    out = torch.zeros_like(query)
    rows, heads, length, width = query.shape
    group = heads // key.shape[1]
    for r in range(rows):
        for q in range(length):
            seen = []
            for k in range(length):
                padding = documents[r][q] == -1 or documents[r][k] == -1
                if padding:
                    sees = q == k
                elif documents[r][q] != documents[r][k]:
                    sees = False
                else:
                    sees = k <= q or (frames[r][q] != -1 and frames[r][q] == frames[r][k])
                if sees:
                    seen.append(k)
            for h in range(heads):
                scores = key[r, h // group, seen] @ query[r, h, q] / math.sqrt(width)
                out[r, h, q] = scores.softmax(0) @ value[r, h // group, seen]
    return out


@pytest.mark.parametrize("backend", ["sdpa", "flex", "blocks"])
@pytest.mark.parametrize("seed", range(4))
def test_attention_equals_a_double_loop_over_pairs(random_layout, backend, seed):
    layout = random_layout(seed)
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(3, heads, 48, 8, generator=generator) for heads in (4, 2, 2))
    with torch.no_grad():
        got = build_mask(layout, backend).attend(query, key, value)
    torch.testing.assert_close(got, brute_force(layout, query, key, value), rtol=1e-5, atol=1e-5)


def test_flex_and_dense_agree_on_rows_longer_than_a_block(random_layout):
    layout = random_layout(7, rows=2, length=400)
    query, key, value = (torch.randn(2, heads, 400, 16) for heads in (4, 1, 1))
    with torch.no_grad():
        dense = build_mask(layout, "sdpa").attend(query, key, value)
        flex = build_mask(layout, "flex").attend(query, key, value)
    torch.testing.assert_close(flex, dense, rtol=1e-5, atol=1e-5)


def test_flex_leaves_out_blocks_between_documents():
    document = torch.arange(4, dtype=torch.int32).repeat_interleave(128)[None]
    layout = SequenceLayout(document, torch.full_like(document, -1), torch.arange(128).repeat(4)[None])
    block_mask = build_mask(layout, "flex").block_mask
    assert block_mask.to_dense()[0, 0].tolist() == torch.eye(4).tolist()


def test_training_with_flex_on_a_cpu_says_what_to_do(random_layout):
    mask = build_mask(random_layout(0), "flex")
    query = torch.randn(3, 2, 48, 8, requires_grad=True)
    with pytest.raises(ValueError, match=r"attention_backend is 'flex'.*use 'auto' or 'sdpa'"):
        mask.attend(query, query, query)


def test_blocks_elsewhere_than_on_a_cpu_say_what_to_do(random_layout):
    layout = random_layout(0)
    elsewhere = SequenceLayout(*(t.to("meta") for t in (layout.document_ids, layout.frame_ids, layout.positions)))
    with pytest.raises(ValueError, match=r"attention_backend is 'blocks'.*on 'meta'; use 'auto', 'flex' or 'sdpa'"):
        build_mask(elsewhere, "blocks")

"""Blocks compile into one graph on CUDA, whatever their feed-forward and whatever is computed again."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from lit_mm.backbone import (
    DenseFeedForward,
    ExpertFeedForward,
    ModalityFeedForward,
    Routing,
    SequenceLayout,
    Transformer,
)
from lit_mm.backbone.flex import FlexMask
from lit_mm.backbone.masks import build_mask
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.parallel import Parallelize
from lit_mm.parallel.parallelize import Recomputed
from tests.helpers.fake_cuda import fake_cuda

DEPTH = 10  # more than the 8 times that Dynamo compiles a function before it gives up
FEED_FORWARDS = {
    "dense": partial(DenseFeedForward, hidden_dim=512),
    "modality": partial(ModalityFeedForward, hidden_dim=512),
    "experts": partial(ExpertFeedForward, experts=32, active=6, granularity=8),
}


def some_layout(documents: int) -> SequenceLayout:
    ids = torch.zeros(4, 256, dtype=torch.int32, device="cuda") + documents
    positions = torch.arange(256, device="cuda").expand(4, -1).contiguous()
    return SequenceLayout(ids, ids - 1, positions, torch.zeros_like(ids))


@pytest.mark.parametrize(
    ("feed_forward", "recompute"),
    [("dense", "selective"), ("modality", "all"), ("experts", "none"), ("experts", "all"), ("experts", "selective")],
)
def test_all_blocks_are_one_graph_in_all_batches(
    feed_forward: str, recompute: Recomputed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_cuda(monkeypatch), torch.no_grad():
        with torch.device("cuda"):
            backbone = Transformer(128, 256, DEPTH, 4, 2, FEED_FORWARDS[feed_forward])
            model = MultimodalTransformer(backbone, 128, 8, compute_dtype=torch.bfloat16)
        Parallelize(recompute, compile=True).wrap_blocks(model)
        assert isinstance(build_mask(some_layout(0)), FlexMask)
        masks = counters["stats"]["unique_graphs"]
        for documents in (1, 2):
            tokens = torch.zeros(4, 256, dtype=torch.int64, device="cuda")
            hidden = model.hidden(tokens, some_layout(documents)).hidden
            assert hidden.dtype == torch.bfloat16
            assert counters["stats"]["unique_graphs"] == masks + 1
    assert not counters["graph_break"]


def test_a_break_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks(DenseFeedForward):
        def forward(self, x: torch.Tensor, routing: Routing) -> tuple[torch.Tensor, None]:
            torch._dynamo.graph_break()
            return super().forward(x, routing)

    with fake_cuda(monkeypatch), torch.no_grad():
        with torch.device("cuda"):
            model = MultimodalTransformer(Transformer(128, 256, 2, 4, 2, Breaks), 128, 8)
        Parallelize("all", compile=True).wrap_blocks(model)
        with pytest.raises(torch._dynamo.exc.Unsupported):
            model.hidden(torch.zeros(4, 256, dtype=torch.int64, device="cuda"), some_layout(0))

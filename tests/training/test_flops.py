"""Operations counted from shapes are those that PyTorch counts while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lit_mm.backbone import (
    DenseFeedForward,
    ExpertFeedForward,
    ModalityFeedForward,
    Routing,
    SequenceLayout,
    Transformer,
)
from lit_mm.backbone.feed_forward import FeedForward
from lit_mm.model.heads import VisualTokens
from lit_mm.model.multimodal import MultimodalTransformer, at_positions
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, Frame, PackedBatch, PackedRow, Text
from lit_mm.training.flops import TrainingFlops, attended_pairs, peak

DIM, VOCABULARY, CHANNELS, TOKENS = 64, 512, 48, 4


def packed(rows: int = 2, length: int = 64) -> PackedBatch:
    """Rows of one document of text and frames each, and one of text alone behind it."""
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    first = (Text(torch.arange(20)), Frame(image), Text(torch.arange(2)), Frame(image, clean=True))
    documents = (Document(first, "pairs"), Document((Text(torch.arange(length - 30)),), "text"))
    packed_rows = [PackedRow(documents, number, number) for number in range(rows)]
    sources = ("pairs", "text")
    return pack_rows(packed_rows, length=length, tokens_per_frame=TOKENS, image_size=4, pad_id=0, sources=sources)


def test_products_of_matrices_are_those_that_pytorch_counts() -> None:
    model = MultimodalTransformer(Transformer(VOCABULARY, DIM, 6, 4, 2, DenseFeedForward), VOCABULARY, CHANNELS)
    batch = packed()
    with FlopCounterMode(display=False) as counter:
        frames = len(batch.frames)
        latents, times = torch.randn(frames, TOKENS, CHANNELS), torch.rand(frames)
        visual = VisualTokens(latents, times, batch.visual_positions, batch.drawn_frames)
        layout = SequenceLayout(batch.document_ids, batch.frame_ids, batch.positions)
        hidden = model.hidden(batch.tokens, layout, visual).hidden
        logits = model.logits(at_positions(hidden, batch.predicted_positions))
        velocity = model.velocity(at_positions(hidden, batch.visual_positions[batch.drawn_frames]))
        (logits.logsumexp(-1).sum() + velocity.square().sum()).backward()
    counted = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "mm" in str(op))
    # Left out are the embedding of time, for each frame, and that no gradient flows into visual tokens.
    assert TrainingFlops.of(model).of_batch(batch) == pytest.approx(counted, rel=0.02)


def test_pairs_are_those_of_a_causal_mask_within_documents() -> None:
    batch = packed()
    document = batch.document_ids
    earlier = torch.ones(document.shape[1], document.shape[1], dtype=torch.bool).tril()
    mask = (document[:, :, None] == document[:, None]) & earlier
    assert (document >= 0).all(), "no padding, which attends to itself"
    assert float(attended_pairs(batch)) == int(mask.sum())
    longer = replace(batch, positions=batch.positions + 1)
    assert float(attended_pairs(longer) - attended_pairs(batch)) == document.numel()


@pytest.mark.parametrize(
    "make",
    [
        DenseFeedForward,
        ModalityFeedForward,
        partial(ExpertFeedForward, experts=16, active=3, granularity=8, renormalise=False),
        partial(ExpertFeedForward, experts=16, active=3, granularity=8, renormalise=False, shared="none"),
    ],
)
def test_active_parameters_are_those_that_one_token_gives_a_gradient(make: Callable[[int], FeedForward]) -> None:
    torch.manual_seed(0)
    layer = make(DIM)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.1)  # with 1 the router saturates, and a gradient may be exactly zero
    one = torch.zeros(1, 1, dtype=torch.int32)
    routing = Routing.of(SequenceLayout(one, one - 1, one.long()))
    out, _ = layer(torch.randn(1, 1, DIM), routing)
    out.square().sum().backward()
    assert sum(int((p.grad != 0).sum()) for p in layer.parameters()) == layer.active_parameters()


@pytest.mark.parametrize(
    ("name", "tera"),
    [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA L40S", 362), ("NVIDIA L4", 121)],
)
def test_peaks_by_name(name: str, tera: float) -> None:
    assert peak(name) == tera * 1e12


def test_a_device_that_is_not_known_has_no_peak() -> None:
    assert peak("NVIDIA GeForce GTX 1080") is None
    assert peak("cpu") is None

"""Memory that is estimated is memory that is used."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_mm.backbone import DenseFeedForward, ExpertFeedForward, ModalityFeedForward, Transformer
from lit_mm.backbone.feed_forward import FeedForward
from lit_mm.command_line.dry_run import duration, sharded_step
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.parallel import Parallelize
from lit_mm.parallel.memory import BatchShape, activations, estimate, fake_loss
from tests.helpers.runs import run_all

DIM, VOCABULARY, CHANNELS = 256, 2048, 32
SHAPE = BatchShape(rows=2, row_length=512, frames=16, tokens_per_frame=16, channels=CHANNELS)
FEED_FORWARDS = {
    "dense": DenseFeedForward,
    "modality": ModalityFeedForward,
    "experts": partial(ExpertFeedForward, experts=16, active=4, granularity=4),
}


def builder(feed_forward: Callable[[int], FeedForward], depth: int = 4) -> Callable[[], MultimodalTransformer]:
    def build() -> MultimodalTransformer:
        backbone = Transformer(VOCABULARY, DIM, depth, 4, 2, feed_forward)
        return MultimodalTransformer(backbone, VOCABULARY, CHANNELS)

    return build


@pytest.mark.parametrize("name", FEED_FORWARDS)
def test_activations_are_what_autograd_keeps(name: str) -> None:
    """Without checkpointing: the tensors that a real forward pass saves, each once."""
    model = builder(FEED_FORWARDS[name])().bfloat16()
    model.compute_dtype = torch.bfloat16
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        fake_loss(model, SHAPE).backward()
    estimated = activations(builder(FEED_FORWARDS[name]), SHAPE, Parallelize(), half=True)
    assert sum(saved.values()) < estimated < 1.3 * sum(saved.values()), "beside what is kept, gradients pass through"


def test_a_checkpointed_block_keeps_its_input_alone() -> None:
    found = [activations(builder(DenseFeedForward, depth), SHAPE, Parallelize("all"), half=True) for depth in (4, 8)]
    one_input = SHAPE.rows * SHAPE.row_length * DIM * 2
    assert found[1] - found[0] == 4 * one_input


@pytest.mark.parametrize("name", FEED_FORWARDS)
def test_more_is_computed_again_where_less_is_kept(name: str) -> None:
    kept = [
        activations(builder(FEED_FORWARDS[name]), SHAPE, how, half=True)
        for how in (Parallelize("all"), Parallelize("all", every=2), Parallelize("selective"), Parallelize("none"))
    ]
    assert kept[0] < kept[1] < kept[3]
    assert kept[0] < kept[2] < kept[3]


@pytest.mark.slow
@pytest.mark.parametrize("name", FEED_FORWARDS)
@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_the_estimate_is_what_fsdp_needs(name: str, recompute: str) -> None:
    """FSDP2 itself, over 8 processes that are not there, followed tensor by tensor."""
    build, shards = builder(FEED_FORWARDS[name]), 8
    found = estimate(
        build, SHAPE, Parallelize(recompute), shards, "bf16-mixed", averaged=False, tokenizer=nn.Identity()
    )
    step = sharded_step(build, SHAPE, Parallelize(recompute), shards)
    own = sum(-(-p.numel() // shards) for p in build().parameters())
    assert step.parameters == pytest.approx(own, rel=1e-3)
    assert found.parameters + found.gradients + found.optimizer == 16 * own
    # Most is kept while the text head computes its losses, when no block is whole.
    assert 0.98 * step.peak < found.total < 1.05 * step.peak + found.gathered


def test_every_copy_is_sharded_over_its_own_processes() -> None:
    build = builder(DenseFeedForward)
    step = sharded_step(build, SHAPE, Parallelize(), processes=8, copies=2)
    assert step.parameters == sum(-(-p.numel() // 4) for p in build().parameters())
    with pytest.raises(ValueError, match="trainer.strategy.copies is 3, which does not divide the 8 processes"):
        sharded_step(build, SHAPE, Parallelize(), processes=8, copies=3)


@pytest.mark.long
def test_the_paper_s_runs_take_a_step_without_their_devices(tmp_path: Path) -> None:
    names = ("modality", "experts")
    runs = [
        ["fit", f"--config=configs/paper/{name}.yaml", "--model.vision.pretrained=false", "--dry_run=true"]
        for name in names
    ]
    output = " ".join(run_all(tmp_path, runs).split())
    millions = re.findall(r"sharded over 128 processes \(1 x 128\): each has ([\d.]+) M parameters", output)
    assert [round(float(of_one) * 128 / 1000, 1) for of_one in millions] == [2.3, 13.6], "billions, as in the headers"
    needed = [float(gib) for gib in re.findall(r"needs ([\d.]+) GiB beside", output)]
    assert len(needed) == 2
    assert max(needed) < 75, "it fits an H100"
    assert "2,097,152 positions" in output, "the paper's batch"


def test_a_duration_is_in_a_unit_that_people_use() -> None:
    assert [duration(s) for s in (0.415, 59, 150, 9000, 86400 * 1.9, 86400 * 20.4, 86400 * 2000)] == [
        "0.41 s", "59 s", "2.5 min", "2.5 h", "46 h", "20 days", "2,000 days"
    ]  # fmt: skip

"""How training shows frames that are read: clean, with some noise, or as those that are drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lit_mm.backbone import Transformer
from lit_mm.flow.matching import FlowMatching
from lit_mm.model.heads import sinusoidal_embedding
from lit_mm.module import LitMultimodal
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, Frame, PackedBatch, PackedRow, Text
from lit_mm.vision import Dual, Pixels, VisualTokenizer


def read_timesteps(flow: FlowMatching, seeds: list[int], counts: list[int], shift: float) -> Tensor:
    """Where every frame is read."""
    return flow.training_timesteps(torch.ones(sum(counts), dtype=torch.bool), seeds, counts, shift)


@pytest.mark.parametrize(("most", "shift"), [(0.5, 1.0), (0.7, 6.0)])
def test_half_stay_clean_and_the_noise_of_the_others_is_uniform_before_the_shift(most: float, shift: float) -> None:
    t = read_timesteps(FlowMatching(read_noise=most), [3, 4], [20_000, 20_000], shift).double()
    clean = t == 1
    assert float(clean.double().mean()) == pytest.approx(0.5, abs=0.01)
    shifted = 1 - t[~clean]
    level = shifted / (shift - (shift - 1) * shifted)  # s' = a s / (1 + (a - 1) s), solved for s
    assert float(level.max()) == pytest.approx(most, abs=1e-3)
    deciles = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    torch.testing.assert_close(level.quantile(deciles), most * deciles, atol=0.01 * most, rtol=0.02)


def test_a_row_gets_the_same_noise_wherever_it_is_and_other_than_its_neighbour() -> None:
    flow = FlowMatching(read_noise=0.5)
    alone = read_timesteps(flow, [8], [40], 2.0)
    together = read_timesteps(flow, [7, 8], [5, 40], 2.0)
    assert torch.equal(together[5:], alone)
    assert not torch.equal(read_timesteps(flow, [9], [40], 2.0), alone)


def test_without_the_option_every_frame_that_is_read_is_clean() -> None:
    assert torch.equal(read_timesteps(FlowMatching(), [3], [100], 6.0), torch.ones(100))


def lit(read_noise: float = 0.0, vision: VisualTokenizer | None = None, read_frames: Any = "clean") -> LitMultimodal:
    torch.manual_seed(0)
    module = LitMultimodal(
        backbone=lambda vocabulary: Transformer(vocabulary, dim=32, depth=1, heads=2, kv_heads=1),
        vision=vision or Pixels(16, 8),
        vocab_size=128,
        flow=FlowMatching(read_noise=read_noise, read_frames=read_frames),
    )
    module.trainer = Trainer(accelerator="cpu", logger=False)
    module.configure_model()
    return module


def batch_of(module: LitMultimodal) -> PackedBatch:
    """Eleven frames that are read, and one that is drawn."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8, generator=generator)
    segments = [Text(torch.tensor([5])), *(Frame(p, clean=i < 11) for i, p in enumerate(pictures))]
    row = PackedRow((Document(tuple(segments), "s"),), 0, 7)
    return pack_rows([row], length=49, tokens_per_frame=4, image_size=16, pad_id=0, sources=("s",))


def entering(module: LitMultimodal, step: str, batch: PackedBatch) -> Tensor:
    """(12, 4, D), what the backbone is given of the frames."""
    seen: list[Tensor] = []
    hook = module.model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    getattr(module, step)(batch, 0)
    hook.remove()
    return seen[0].flatten(0, 1)[batch.visual_positions]


def test_training_reads_noised_frames_told_how_noisy_they_are_and_validation_clean_ones() -> None:
    module = lit(0.6)
    batch = batch_of(module)
    data = module.vision.encode(batch.frames)
    shift = module.flow.noise_shift(4, 192)
    noised = module.flow.training_timesteps(batch.frame_clean, batch.seeds, batch.frames_per_row, shift)
    noise = module.flow.sample(data, noised, batch.seeds, batch.frames_per_row).noise
    assert 0 < int((noised[:11] == 1).sum()) < 11, "the seed has to give both kinds"
    visual = module.model.visual_input
    for step, times in (("training_step", noised), ("validation_step", torch.ones(12))):
        t = times[:, None, None]
        shown = ((1 - t) * noise + t * data) @ visual.linear.weight.T
        told = visual.time(sinusoidal_embedding(times, visual.time_features))[:, None]
        there = entering(module, step, batch)
        torch.testing.assert_close(there[:11], (shown + told)[:11], rtol=1e-5, atol=1e-5)


def test_the_drawn_frame_is_noised_as_without_the_option() -> None:
    plain, noisy = lit(), lit(0.6)
    batch = batch_of(plain)
    torch.testing.assert_close(entering(noisy, "training_step", batch)[11], entering(plain, "training_step", batch)[11])


@pytest.mark.parametrize("most", [-0.1, 1.0])
def test_noise_out_of_range_is_refused(most: float) -> None:
    with pytest.raises(ValueError, match=rf"^model\.flow\.read_noise is {most}; it is at least 0 and below 1$"):
        FlowMatching(read_noise=most)


def test_noise_on_clean_frames_is_not_for_noised_ones() -> None:
    with pytest.raises(ValueError, match=r"^model\.flow\.read_noise is 0\.5, .*\.read_frames is 'noised'; set .* 0$"):
        FlowMatching(read_noise=0.5, read_frames="noised")


@pytest.mark.parametrize(("noise", "frames"), [(0.5, "clean"), (0.0, "noised")])
def test_tokenizers_that_read_apart_are_refused(noise: float, frames: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^model\.flow\.read_frames is '{frames}' and .*{noise}, but Dual reads .*0$"
    ):
        lit(noise, Dual(Pixels(16, 8), Pixels(16, 8)), frames)


# ---- flow loss on all frames


def flow_losses(module: LitMultimodal, step: str, batch: PackedBatch, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The flow losses that a step counts."""
    found: list[Tensor] = []
    monkeypatch.setattr(module, "_count", lambda means, batch, losses, *_: found.append(losses.flow.detach()))
    getattr(module, step)(batch, 0)
    return found[0]


def test_noised_frames_have_a_time_and_a_loss_each_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module, plain = lit(read_frames="noised"), lit()
    batch = batch_of(module)
    data = module.vision.encode(batch.frames)
    shift = module.flow.noise_shift(4, 192)
    drawn = torch.zeros(12, dtype=torch.bool)
    times = plain.flow.training_timesteps(drawn, batch.seeds, batch.frames_per_row, shift)
    assert len(set(times.tolist())) == 12
    sample = plain.flow.sample(data, times, batch.seeds, batch.frames_per_row)
    visual = module.model.visual_input
    shown = sample.noised @ visual.linear.weight.T
    told = visual.time(sinusoidal_embedding(times, visual.time_features))[:, None]
    torch.testing.assert_close(entering(module, "training_step", batch), shown + told, rtol=1e-5, atol=1e-5)
    # The velocity head of a fresh model says 0, so each loss is the velocity squared.
    expected = (data - sample.noise).square().mean((1, 2))
    torch.testing.assert_close(flow_losses(module, "training_step", batch, monkeypatch), expected)
    torch.testing.assert_close(flow_losses(plain, "training_step", batch, monkeypatch), expected[11:])
    torch.testing.assert_close(flow_losses(module, "validation_step", batch, monkeypatch), expected[11:])
    assert torch.equal(entering(module, "validation_step", batch), entering(plain, "validation_step", batch))

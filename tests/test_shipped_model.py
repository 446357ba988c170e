"""The weights that come with the package, on game maps they were never trained on, and on words."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from data_modules.action_video import ActionVideoDataModule
from data_modules.dataset import Draw
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.loading import load
from lit_mm.sequence import Frame, Segment
from tests.helpers.program import ROOT

FOLDER = ROOT / "lit_mm/weights/play"
EXPECTED = FlowSampler(steps=1, guidance_scale=1.0, noise_scale=0.0)  # one step from no noise: the conditional mean


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return load(FOLDER, "cpu").decoder


def squared(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean())


def test_they_fit_in_the_package() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 32e6
    weights = load_file(FOLDER / "model.safetensors").values()
    assert {w.dtype for w in weights if w.is_floating_point()} == {torch.bfloat16}


def test_what_comes_next_is_foreseen_and_depends_on_the_action(decoder: Decoder) -> None:
    """On maps 14 and 17: nearer to the truth than the last frame is, and than what another action leads to."""
    module = ActionVideoDataModule(
        str(ROOT / "data/tiny/action_video/val"), unit=32.0, frame_step=2, horizon=4, targets=1, action_dropout=0.0,
        tokenizer=str(ROOT / "data/tiny/tokenizer.json"), image_size=64, tokens_per_frame=16,
    )  # fmt: skip
    module.setup("fit")
    (dataset,) = module.datasets["train"].values()
    documents = [dataset.document(Draw(i * len(dataset) // 64, 0, 0)) for i in range(64)]
    prefixes: list[list[Segment]] = [list(d.segments[:-2]) for d in documents]  # to the <boi> before the target
    targets = [s.image for d in documents for s in d.segments if isinstance(s, Frame) and not s.clean]
    truth = decoder.vision.encode(torch.stack(targets))
    seen = [[s.image for s in prefix if isinstance(s, Frame)] for prefix in prefixes]
    last = decoder.vision.encode(torch.stack([frames[-1] for frames in seen]))
    others = [[*p[:-1], prefixes[(i + 32) % 64][-1]] for i, p in enumerate(prefixes)]
    foreseen = decoder.draw_latents(prefixes, [0] * 64, EXPECTED)
    with_others = decoder.draw_latents(others, [0] * 64, EXPECTED)
    assert squared(foreseen, truth) < 0.8 * squared(last, truth)
    assert squared(foreseen, truth) < 0.9 * squared(with_others, truth)

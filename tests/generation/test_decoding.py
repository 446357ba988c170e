"""The decoder with its cache against one that runs whole rows again (`tests.helpers.uncached`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from lit_mm.flow.preconditioning import GaussianPreconditioning
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.request import Request, frame_seed
from lit_mm.generation.roll_out import RollOut, roll_out
from lit_mm.generation.rows import CachedRows
from lit_mm.generation.sampling import TextSampling
from lit_mm.sequence import Frame, Segment
from lit_mm.vision import Dual, Pixels
from tests.helpers.decoders import FEED_FORWARDS, Inverted, Scripted, T, joined, make, picture, shown, text

every_feed_forward = pytest.mark.parametrize("feed_forward", FEED_FORWARDS)
same = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)


@every_feed_forward
def test_text_has_the_logits_of_whole_rows(feed_forward: str) -> None:
    decoder, uncached = make(feed_forward, places=4)
    prefixes = [shown(0), shown(1, " cat"), shown(2, " several more words")]
    samplings = [Scripted() for _ in prefixes]
    requests = [Request(p, max_tokens=9, sampling=s) for p, s in zip(prefixes, samplings, strict=True)]
    for prefix, sampling, answer in zip(prefixes, samplings, decoder.generate(requests), strict=True):
        expected = uncached.continue_row(prefix, Scripted().rule, max_tokens=9)
        same(torch.stack(sampling.seen), torch.stack(expected.logits))
        assert answer.ids == joined(expected.segments)
        assert len(answer.ids) == 9
        assert answer.stopped == "tokens"


@every_feed_forward
@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_frames_are_those_of_whole_rows(feed_forward: str, method: str, scale: float) -> None:
    sampler = FlowSampler(method, 3, scale)  # type: ignore[arg-type]
    decoder, uncached = make(feed_forward, sampler=sampler)
    prefixes = [shown(2, " left", T.boi_id), [text(T.bos_id, "a red fox", T.boi_id)]]
    drawn = decoder.draw_latents(prefixes, [3, 4])
    same(drawn, torch.stack([uncached.frame(p, s) for p, s in zip(prefixes, [3, 4], strict=True)]))
    assert not torch.allclose(drawn[0], decoder.draw_latents([shown(2, " right", T.boi_id)], [3])[0], atol=1e-2)


@every_feed_forward
@pytest.mark.parametrize("apart", [False, True], ids=["one tokenizer", "two"])
def test_interleaved_text_and_frames_are_those_of_whole_rows(feed_forward: str, apart: bool) -> None:
    vision = Dual(Inverted(), Pixels(16, 8)) if apart else None
    decoder, uncached = make(feed_forward, vision, FlowSampler(steps=2, guidance_scale=2.0))
    places = [(1, 4, 5), (0,), (2, 6)]
    prefixes = [shown(1), shown(0), shown(2, "x", T.boi_id)]
    samplings = [Scripted(bois=bois) for bois in places]
    requests = [
        Request(p, seed, max_tokens=14, max_frames=3, sampling=s)
        for seed, (p, s) in enumerate(zip(prefixes, samplings, strict=True))
    ]
    answers = decoder.generate(requests)
    assert [len(a.latents) for a in answers] == [3, 1, 3]
    for seed, answer in enumerate(answers):
        rule = Scripted(bois=places[seed]).rule
        expected = uncached.continue_row(prefixes[seed], rule, seed, max_tokens=14, max_frames=3)
        same(torch.stack(samplings[seed].seen), torch.stack(expected.logits), rtol=1e-3, atol=1e-3)
        assert answer.ids == joined(expected.segments)
        frames = [s.image for s in expected.segments if isinstance(s, Frame)]
        same(torch.stack(answer.latents)[..., :192], torch.stack(frames), rtol=1e-3, atol=1e-3)
        kinds = [type(s) for s in answer.segments]
        assert all(a is not b for a, b in zip(kinds, kinds[1:], strict=False)), "text and frames take turns"


@every_feed_forward
@torch.no_grad()
def test_half_precision_is_no_further_from_the_truth_with_a_cache_than_without(feed_forward: str) -> None:
    """The truth are whole rows in float32; both ways round what they compute to bfloat16."""
    half, truth = (
        make(feed_forward, sampler=FlowSampler(steps=3), compute_dtype=d) for d in (torch.bfloat16, torch.float32)
    )
    cached, row = CachedRows(half[0].model, half[0].vision, half[0].flow, 1), shown(2, " left")
    assert cached.cache.memory.dtype == torch.bfloat16
    found = [cached.append([0], half[0].encode([row]))]
    tokens = T.ids(" and then some more words").tolist()
    found += [cached.append_tokens([0], [token]) for token in tokens]
    rows = [[*row, *(text(t) for t in tokens[:n])] for n in range(len(tokens) + 1)]
    before = [*shown(2, " left"), text(T.boi_id)]
    for with_cache, whole, exact in (
        (torch.cat(found), *(torch.stack([u.logits(r) for r in rows]) for _, u in (half, truth))),
        (half[0].draw_latents([before], [3])[0], *(u.frame(before, 3) for _, u in (half, truth))),
    ):
        error, unavoidable = ((x.float() - exact).norm() / exact.norm() for x in (with_cache, whole))
        assert 1e-4 < unavoidable < 0.03
        assert error < 1.5 * unavoidable


def test_a_preconditioned_flow_is_that_of_whole_rows() -> None:
    decoder, uncached = make(sampler=FlowSampler(steps=3, guidance_scale=2.0))
    root = torch.randn(192, 192, generator=torch.Generator().manual_seed(1)) / 14
    decoder.flow.parameterisation = GaussianPreconditioning(torch.linspace(-1, 1, 192), root @ root.T)
    assert uncached.flow is decoder.flow
    prefix = shown(2, " left", T.boi_id)
    same(decoder.draw_latents([prefix], [0])[0], uncached.frame(prefix, 0), rtol=1e-3, atol=1e-3)


def test_rows_decoded_together_are_as_each_alone() -> None:
    decoder, _ = make("experts", sampler=FlowSampler(steps=2, guidance_scale=2.0))
    warm = TextSampling(temperature=1.0, top_p=0.9)
    other = FlowSampler("heun", 2, 1.0)
    requests = [
        Request(shown(2), 0, max_tokens=12, sampling=warm),
        Request(shown(0, "a much longer text than the others have"), 1, max_tokens=5, sampling=warm),
        Request(shown(1, "", T.boi_id), 2, max_tokens=8, max_frames=1, sampling=warm),
        Request(shown(0, "", T.boi_id), 3, max_tokens=3, max_frames=1, sampling=warm, sampler=other),
        Request(shown(1), 4, max_tokens=10, max_frames=2, sampling=Scripted(bois=(2,))),
    ]
    together = decoder.generate(requests)
    alone = [
        decoder.generate([Request(**{**vars(r), "sampling": Scripted(bois=(2,)) if r.seed == 4 else warm})])[0]
        for r in requests
    ]
    for a, b in zip(together, alone, strict=True):
        assert (a.ids, a.stopped) == (b.ids, b.stopped)
        assert len(a.latents) == len(b.latents)
        for x, y in zip(a.latents, b.latents, strict=True):
            same(x, y)
    assert len({tuple(a.ids[:3]) for a in together[:3]}) == 3
    assert decoder.generate([Request(shown(2), 9, max_tokens=12, sampling=warm)])[0].ids != together[0].ids


@pytest.mark.parametrize("apart", [False, True], ids=["one tokenizer", "two"])
def test_a_frame_drawn_then_kept_is_as_one_that_was_there(apart: bool) -> None:
    decoder, _ = make(vision=Dual(Inverted(), Pixels(16, 8)) if apart else None)
    before = shown(1, " then", T.boi_id)
    through = Scripted()
    drawn = decoder.generate([Request(before, 5, max_tokens=4, max_frames=1, sampling=through)])[0]
    there = [*before, Frame(drawn.latents[0], clean=True), text(T.eoi_id)]
    given = Scripted()
    decoder.generate([Request(there, 5, max_tokens=3, sampling=given)])
    same(torch.stack(through.seen), torch.stack(given.seen))


def test_tokenizers_that_read_apart_read_a_drawn_frame_again_as_a_picture() -> None:
    decoder, _ = make(vision=Dual(Inverted(), Pixels(16, 8)))
    before = shown(1, " then", T.boi_id)
    through, given = Scripted(), Scripted()
    drawn = decoder.generate([Request(before, 5, max_tokens=4, max_frames=1, sampling=through)])[0]
    pixels = decoder.decode(torch.stack(drawn.latents))[0]
    decoder.generate([Request([*before, Frame(pixels, clean=True), text(T.eoi_id)], max_tokens=3, sampling=given)])
    same(torch.stack(through.seen), torch.stack(given.seen))


# ---- cost


def test_memory_grows_linearly() -> None:
    decoder, _ = make()
    sizes = []
    for length in (1024, 2048, 4096):
        cache = decoder.model.backbone.new_cache(3, torch.float32)
        cache.reserve(length)
        sizes.append(cache.memory.numel())
    per_position = 2 * 2 * 3 * 2 * 8  # layers, keys and values, rows, heads, width
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0]) == 2048 * per_position
    assert sizes[0] <= (1024 + 256) * per_position


def test_compiled_blocks_are_neither_run_nor_compiled_while_decoding() -> None:
    decoder, uncached = make("dense")
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        compiled.append(1)
        return graph.forward

    for layer in decoder.model.backbone.layers:
        layer.compile(backend=backend)
    request = Request(shown(1), max_tokens=8, max_frames=1, sampling=Scripted(bois=(1,)))
    (answer,) = decoder.generate([request])
    assert len(answer.ids) == 8
    assert not compiled
    uncached.logits(shown(1))
    assert compiled, "the blocks were compiled to begin with"


# ---- roll-outs


def test_no_two_frames_share_their_noise() -> None:
    """Seeds of repetitions count up as frames do, and the seed of one is that of another's later frame nowhere."""
    assert len({frame_seed(seed, frame) for seed in range(100) for frame in range(100)}) == 10_000


@pytest.mark.parametrize("apart", [False, True], ids=["one tokenizer", "two"])
def test_a_roll_out_draws_each_frame_from_the_last_four(apart: bool) -> None:
    vision = Dual(Inverted(), Pixels(16, 8)) if apart else None
    decoder, uncached = make(vision=vision, sampler=FlowSampler(steps=2, guidance_scale=3.0))
    context = torch.stack([picture(i) for i in range(4)])
    actions = ("left", "right", "forward", "left", "stay", "left")
    shorter = RollOut(context.flip(0)[:2], ("stay",), seed=3, sampler=FlowSampler("heun", 2, 1.0))
    drawn, other = roll_out(decoder, [RollOut(context, actions, seed=7), shorter])
    frames = list(context)
    for i, action in enumerate(actions):
        row: list[Segment] = [text(T.bos_id)]
        for frame in frames[-4:]:
            row += [text(T.boi_id), Frame(frame, clean=True), text(T.eoi_id)]
        frames.append(uncached.frame([*row, text(action, T.boi_id)], frame_seed(7, i)))
        same(drawn[i], frames[-1], rtol=1e-3, atol=1e-3)
    assert drawn.shape == (6, 4, 192)
    assert other.shape == (1, 4, 192)

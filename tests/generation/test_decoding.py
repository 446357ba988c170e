"""The decoder with its cache against one that runs whole rows again (`tests.helpers.uncached`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from lit_mm.backbone import DenseFeedForward, ExpertFeedForward, FeedForward, ModalityFeedForward, Transformer
from lit_mm.flow.matching import FlowMatching
from lit_mm.flow.preconditioning import GaussianPreconditioning
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.request import Request, frame_seed
from lit_mm.generation.roll_out import RollOut, roll_out
from lit_mm.generation.sampling import TextSampling
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.sequence import Frame, Segment, Text
from lit_mm.tokenizer import Tokenizer
from lit_mm.vision import Dual, Pixels, VisualTokenizer
from tests.helpers.program import ROOT
from tests.helpers.uncached import Uncached

TOKENIZER = Tokenizer(str(ROOT / "data/tiny/tokenizer.json"))
T = TOKENIZER
FEED_FORWARDS: dict[str, Callable[[int], FeedForward]] = {
    "dense": partial(DenseFeedForward, hidden_dim=48),
    "modality": partial(ModalityFeedForward, hidden_dim=48),
    "experts": partial(ExpertFeedForward, experts=8, active=3, granularity=4),
}
every_feed_forward = pytest.mark.parametrize("feed_forward", FEED_FORWARDS)
same = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)


class Inverted(Pixels):
    """A reading space of its own, with fewer channels."""

    def __init__(self) -> None:
        super().__init__(16, 8)
        self.channels = 20

    def encode(self, images: Tensor) -> Tensor:
        return 1 - images.reshape(-1, 4, 192)[..., :20].float().square() / 255**2


@dataclass(frozen=True)
class Scripted(TextSampling):
    """Writes `<boi>` at some places, else the most likely token but `<eos>`, and remembers the logits."""

    bois: tuple[int, ...] = ()
    ends: int = -1
    seen: list[Tensor] = field(default_factory=list)

    def choose(self, logits: Tensor, generator: torch.Generator, banned: Sequence[int] = ()) -> int:
        self.seen.append(logits)
        return self.rule(logits.index_fill(0, torch.tensor(banned), -torch.inf), len(self.seen) - 1)

    def rule(self, possible: Tensor, number: int) -> int:
        if number == self.ends:
            return T.eos_id
        if number in self.bois and possible[T.boi_id] > -torch.inf:
            return T.boi_id
        return int(possible.index_fill(0, torch.tensor([T.eos_id, T.boi_id]), -torch.inf).argmax())


def make(
    feed_forward: str = "modality",
    vision: VisualTokenizer | None = None,
    sampler: FlowSampler | None = None,
    places: int | None = None,
) -> tuple[Decoder, Uncached]:
    """A random model whose outputs depend strongly on all they see, in both decoders."""
    torch.manual_seed(0)
    vision = vision or Pixels(16, 8)
    backbone = Transformer(8192, dim=32, depth=2, heads=4, kv_heads=2, feed_forward=FEED_FORWARDS[feed_forward])
    read = vision.read_channels
    model = MultimodalTransformer(backbone, 8192, vision.channels, read, places).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    parts = model, vision, FlowMatching(), sampler or FlowSampler(steps=3, guidance_scale=1.0), T
    return Decoder(*parts), Uncached(*parts)


def picture(seed: int) -> Tensor:
    return torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def text(*parts: int | str) -> Text:
    return Text(T.ids(*parts))


def shown(number: int = 2, closing: str = " a dog", *end: int) -> list[Segment]:
    """Text around some pictures."""
    row: list[Segment] = [text(T.bos_id, "look")]
    for i in range(number):
        row += [text(T.boi_id), Frame(picture(i), clean=True), text(T.eoi_id, " and")]
    return [*row, text(closing, *end)]


def joined(segments: Sequence[Segment]) -> list[int]:
    return [i for s in segments if isinstance(s, Text) for i in s.ids.tolist()]


# ---- equal to whole rows


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


def test_a_preconditioned_flow_is_that_of_whole_rows() -> None:
    decoder, uncached = make(sampler=FlowSampler(steps=3, guidance_scale=2.0))
    root = torch.randn(192, 192, generator=torch.Generator().manual_seed(1)) / 14
    decoder.flow.preconditioning = GaussianPreconditioning(torch.linspace(-1, 1, 192), root @ root.T)
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


# ---- where answers end


def test_eos_ends_an_answer_and_is_not_in_it() -> None:
    decoder, _ = make()
    (answer,) = decoder.generate([Request(shown(1), max_tokens=9, sampling=Scripted(ends=3))])
    assert answer.stopped == "eos"
    assert len(answer.ids) == 3
    assert T.eos_id not in answer.ids


@pytest.mark.parametrize("most", range(1, 9))
def test_most_tokens_count_delimiters(most: int) -> None:
    decoder, _ = make()
    (answer,) = decoder.generate([Request(shown(1), max_tokens=most, max_frames=2, sampling=Scripted(bois=(2, 4)))])
    assert answer.stopped == "tokens"
    assert len(answer.ids) == most
    # Texts of 2, boi, eoi, 1, boi, eoi, and more: a frame behind every boi.
    assert len(answer.latents) == sum(most >= place for place in (3, 6))
    kinds = [i for i in answer.ids if i in (T.boi_id, T.eoi_id)]
    assert kinds == [T.boi_id, T.eoi_id, T.boi_id, T.eoi_id][: len(kinds)]


def test_behind_the_most_frames_there_is_only_text() -> None:
    decoder, _ = make()
    sampling = Scripted(bois=(1, 3, 4, 5, 6))
    (answer,) = decoder.generate([Request(shown(0), max_tokens=12, max_frames=2, sampling=sampling)])
    assert len(answer.latents) == 2
    assert answer.ids.count(T.boi_id) == answer.ids.count(T.eoi_id) == 2
    assert len(answer.ids) == 12
    (one,) = decoder.generate([Request(shown(0, "x", T.boi_id), max_frames=1)])
    assert one.stopped == "frames"
    assert [type(s) for s in one.segments] == [Frame]


@pytest.mark.parametrize("frames", [0, 2])
@pytest.mark.parametrize("more", range(14))
def test_prefix_and_answer_never_hold_more_than_the_context(more: int, frames: int) -> None:
    decoder, _ = make()
    prefix = shown(1)
    length = len(joined(prefix)) + 4
    sampling = Scripted(bois=(1,))
    request = Request(prefix, max_tokens=99, max_frames=frames, sampling=sampling, context=length + more)
    (answer,) = decoder.generate([request])
    assert answer.stopped == "context"
    held = len(answer.ids) + 4 * len(answer.latents)
    if frames == 0 or more < 2:
        assert held == more
    elif more < 7:  # one token, boi, and no room for the frame and its eoi
        assert (held, answer.latents) == (2, [])
    else:
        assert held == more
        assert len(answer.latents) == 1


def test_stop_texts_end_an_answer_that_does_not_hold_them() -> None:
    decoder, _ = make()
    prefix = shown(1)
    (whole,) = decoder.generate([Request(prefix, max_tokens=12, sampling=Scripted())])
    written = T.decode(whole.ids)
    for stop in {written[5:8], written[10:12], written[0]}:
        (answer,) = decoder.generate([Request(prefix, max_tokens=12, sampling=Scripted(), stop=("never", stop))])
        assert answer.stopped == "text"
        assert T.decode(answer.ids) == written[: written.index(stop)]
    (missing,) = decoder.generate([Request(prefix, max_tokens=12, sampling=Scripted(), stop=("never",))])
    assert (missing.ids, missing.stopped) == (whole.ids, "tokens")


def test_a_stop_text_behind_a_frame_leaves_its_delimiter_whole() -> None:
    decoder, _ = make()
    prefix = shown(0, "x", T.boi_id)
    (whole,) = decoder.generate([Request(prefix, max_tokens=6, max_frames=1, sampling=Scripted())])
    written = T.decode(whole.ids[1:])
    stop = written[-2:]
    (answer,) = decoder.generate(
        [Request(prefix, max_tokens=6, max_frames=1, sampling=Scripted(), stop=(stop, "<eoi>", "<"))]
    )
    assert answer.stopped == "text"
    assert answer.ids[0] == T.eoi_id
    assert T.decode(answer.ids[1:]) == written[: written.index(stop)]


class Loves(nn.Module):
    """A text head that wants one token above all."""

    def __init__(self, token: int) -> None:
        super().__init__()
        self.token = token

    def logits(self, hidden: Tensor) -> Tensor:
        logits = torch.zeros(len(hidden), 8192)
        logits[:, self.token], logits[:, 500] = 50.0, 25.0
        return logits


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_text_alone_never_holds_delimiters_of_frames(temperature: float) -> None:
    decoder, _ = make()
    for token in (T.boi_id, T.eoi_id, T.bos_id, T.pad_id):
        decoder.model.text_head = Loves(token)  # type: ignore[assignment]
        (ids,) = decoder.write_text([shown(1)], [0], max_tokens=4, temperature=temperature)
        assert len(ids) == 4
        assert token not in ids


def test_a_prefix_that_ends_with_boi_begins_with_a_frame() -> None:
    decoder, _ = make()
    (answer,) = decoder.generate([Request(shown(0, "x", T.boi_id), max_tokens=3, max_frames=1, sampling=Scripted())])
    assert isinstance(answer.segments[0], Frame)
    assert answer.ids[0] == T.eoi_id
    (none,) = decoder.generate([Request(shown(0, "x", T.boi_id), max_tokens=3)])
    assert (none.segments, none.stopped) == ([], "frames")


def test_nothing_asked_is_nothing_answered() -> None:
    assert make()[0].generate([]) == []


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

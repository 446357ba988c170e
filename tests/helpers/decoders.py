"""A small random model in two decoders, with a cache and without, and rows that follow a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from lit_mm.backbone import DenseFeedForward, ExpertFeedForward, FeedForward, ModalityFeedForward, Transformer
from lit_mm.flow.matching import FlowMatching
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.sampling import TextSampling
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.sequence import Frame, Segment, Text
from lit_mm.tokenizer import Tokenizer
from lit_mm.vision import Pixels, VisualTokenizer
from tests.helpers.program import ROOT
from tests.helpers.uncached import Uncached

TOKENIZER = Tokenizer(str(ROOT / "data/tiny/tokenizer.json"))
T = TOKENIZER
FEED_FORWARDS: dict[str, Callable[[int], FeedForward]] = {
    "dense": partial(DenseFeedForward, hidden_dim=48),
    "modality": partial(ModalityFeedForward, hidden_dim=48),
    "experts": partial(ExpertFeedForward, experts=8, active=3, granularity=4),
}


class Inverted(Pixels):
    """A reading space of its own, with fewer channels."""

    def __init__(self) -> None:
        super().__init__(16, 8)
        self.channels = 20

    def encode(self, images: Tensor) -> Tensor:
        return 1 - images.reshape(-1, 4, 192)[..., :20].float().square() / 255**2


class Coarse(Pixels):
    """What it decodes is darker than what it encoded."""

    def __init__(self) -> None:
        super().__init__(16, 8)

    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents) // 2


@dataclass(frozen=True)
class Scripted(TextSampling):
    """Writes `<boi>` at some places, else the most likely token but `<eos>`, and remembers the logits; see `scripts`."""

    bois: tuple[int, ...] = ()
    ends: int = -1
    seen: list[Tensor] = field(default_factory=list)

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
    compute_dtype: torch.dtype = torch.float32,
) -> tuple[Decoder, Uncached]:
    """A random model whose outputs depend strongly on all they see, in both decoders."""
    torch.manual_seed(0)
    vision = vision or Pixels(16, 8)
    backbone = Transformer(8192, dim=32, depth=2, heads=4, kv_heads=2, feed_forward=FEED_FORWARDS[feed_forward])
    read = vision.read_channels
    model = MultimodalTransformer(backbone, 8192, vision.channels, read, places, compute_dtype).eval()
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

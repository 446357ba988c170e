"""Decoding: any interleaving of text and frames, from one loop (paper §1.3).

Text is sampled token by token; behind `<boi>` a frame is denoised, kept clean, closed with `<eoi>`, and text goes on.
What rows hold is computed once (`CachedRows`), for guidance in a second row without the text, in the same batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lit_mm.flow.guidance import guide
from lit_mm.flow.matching import FlowMatching
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.rows import CachedRows
from lit_mm.generation.sampling import TextSampling
from lit_mm.model import MultimodalTransformer
from lit_mm.sequence import Document, Frame, Segment, Text
from lit_mm.tokenizer import Tokenizer
from lit_mm.vision.base import VisualTokenizer
from lit_mm.vision.latents import encode_to_store

Prefix = Sequence[Segment]
Stop = Literal["eos", "tokens", "frames", "text", "context"]


@dataclass(frozen=True)
class Request:
    """What to continue, and how far.

    Args:
        prefix: segments as a document has them. Behind a `<boi>` at its end a frame is drawn first.
        seed: of everything sampled; the same whatever else is asked at the same time.
        max_tokens: most text tokens to write, delimiters included.
        max_frames: most frames to draw; with 0 there is only text.
        sampling: of text.
        stop: texts that end the answer, which does not hold them.
        sampler: of frames; the decoder's own by default.
        context: most positions of prefix and answer together; unlimited by default.
    """

    prefix: Prefix
    seed: int = 0
    max_tokens: int = 0
    max_frames: int = 0
    sampling: TextSampling = field(default_factory=TextSampling)
    stop: tuple[str, ...] = ()
    sampler: FlowSampler | None = None
    context: int | None = None


@dataclass
class Continuation:
    """What was added to a prefix.

    Attributes:
        segments: texts with delimiters, and frames as latents, in order; without the `<eos>` that ended it.
        stopped: why it ended: the model's `<eos>`, the most tokens, frames or positions, or a stop text.
    """

    segments: list[Segment] = field(default_factory=list)
    stopped: Stop = "eos"

    @property
    def ids(self) -> list[int]:
        """All text tokens."""
        return [int(i) for s in self.segments if isinstance(s, Text) for i in s.ids]

    @property
    def latents(self) -> list[Tensor]:
        """All frames (N, C)."""
        return [s.image for s in self.segments if isinstance(s, Frame)]


@dataclass(frozen=True)
class Decoder:
    """Continues prefixes.

    Args:
        model: the trained model.
        vision: its visual tokenizer.
        flow: how the velocity head's output is read.
        sampler: solves the flow.
        tokenizer: its text tokenizer.
    """

    model: MultimodalTransformer
    vision: VisualTokenizer
    flow: FlowMatching
    sampler: FlowSampler
    tokenizer: Tokenizer

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def generate(self, requests: Sequence[Request]) -> list[Continuation]:
        """Continue every request; all are decoded together."""
        with _uncompiled():
            return _Generation(self, requests).run()

    def write_text(
        self, prefixes: Sequence[Prefix], seeds: Sequence[int], *, max_tokens: int, temperature: float = 0.0
    ) -> list[list[int]]:
        """Continue each prefix with text alone, until `<eos>`, which is not returned, or `max_tokens`."""
        sampling = TextSampling(temperature)
        requests = [Request(p, seed, max_tokens, sampling=sampling) for p, seed in zip(prefixes, seeds, strict=True)]
        return [answer.ids for answer in self.generate(requests)]

    def draw_latents(
        self, prefixes: Sequence[Prefix], seeds: Sequence[int], sampler: FlowSampler | None = None
    ) -> Tensor:
        """Draw one frame behind each prefix, which ends with `<boi>`.

        Returns:
            (prefixes, N, C).
        """
        requests = [Request(p, s, max_frames=1, sampler=sampler) for p, s in zip(prefixes, seeds, strict=True)]
        latents = [answer.latents[0] for answer in self.generate(requests)]
        return torch.stack(latents)[..., : self.vision.channels]

    def draw_frames(self, prefixes: Sequence[Prefix], seeds: Sequence[int]) -> Tensor:
        """As `draw_latents`, but (prefixes, 3, image_size, image_size) uint8."""
        return self.decode(self.draw_latents(prefixes, seeds))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Frames (F, N, C) as pictures (F, 3, image_size, image_size) uint8."""
        return self.vision.decode(latents[..., : self.vision.channels])

    @torch.no_grad()
    def encode(self, prefixes: Sequence[Prefix]) -> list[list[Segment]]:
        """The same prefixes with every picture as latents; one that is in several is encoded once."""
        pictures = {id(s.image): s.image.to(self.device) for p in prefixes for s in p if isinstance(s, Frame)}
        pixels = {key: image for key, image in pictures.items() if not image.is_floating_point()}
        if pixels:
            images = torch.stack(list(pixels.values()))
            pictures |= dict(zip(pixels, encode_to_store(self.vision, images), strict=True))
        return [
            [s if isinstance(s, Text) else Frame(pictures[id(s.image)], True, s.origin) for s in p] for p in prefixes
        ]

    @torch.no_grad()
    def read_again(self, latents: Tensor) -> Tensor:
        """Drawn frames (F, N, C) as the rows keep them: for tokenizers that read apart, read as pictures."""
        if not self.vision.reads_apart:
            return latents
        return torch.cat([latents, self.vision.read(self.vision.decode(latents))], dim=-1)

    def without_text(self, segments: Prefix) -> list[Segment]:
        """What the model is shown without its condition: pictures and delimiters (paper §1.6)."""
        t = self.tokenizer
        delimiters = torch.tensor([t.bos_id, t.eos_id, t.boi_id, t.eoi_id])
        return [Text(s.ids[torch.isin(s.ids, delimiters)]) if isinstance(s, Text) else s for s in segments]


@dataclass
class _Row:
    """The state of one request."""

    request: Request
    number: int
    prefix: list[Segment]
    generator: torch.Generator
    answer: Continuation
    logits: Tensor | None = None
    draws: bool = False  # a frame is next
    ended: bool = False
    text: list[int] = field(default_factory=list)  # of the answer, since its last frame
    unconditional: int = 0  # segments of prefix and answer that its row for guidance holds

    def close_text(self) -> None:
        if self.text:
            self.answer.segments.append(Text(torch.tensor(self.text)))
            self.text = []

    def end(self, why: Stop) -> None:
        self.close_text()
        self.ended, self.answer.stopped = True, why


class _Generation:
    """One call of `Decoder.generate`: rows 0 to n - 1 with their conditions, rows n to 2n - 1 without."""

    def __init__(self, decoder: Decoder, requests: Sequence[Request]) -> None:
        self.decoder, self.tokenizer = decoder, decoder.tokenizer
        prefixes = decoder.encode([request.prefix for request in requests])
        self.cached = CachedRows(decoder.model, decoder.vision, decoder.flow, 2 * len(requests))
        device = decoder.device
        self.rows = [
            _Row(request, n, prefix, torch.Generator(device).manual_seed(request.seed), Continuation())
            for n, (request, prefix) in enumerate(zip(requests, prefixes, strict=True))
        ]

    def run(self) -> list[Continuation]:
        if not self.rows:
            return []
        self._read_prefixes()
        while open_rows := [row for row in self.rows if not row.ended]:
            # Frames wait until no row has text to write, so that as many as possible are drawn together.
            writing = [row for row in open_rows if not row.draws]
            if writing:
                self._write(writing)
            else:
                self._draw(open_rows)
        return [row.answer for row in self.rows]

    def _read_prefixes(self) -> None:
        for row in self.rows:
            row.draws = _last_token(row.prefix) == self.tokenizer.boi_id
            self._check_limits(row)
        rows = [row for row in self.rows if not row.ended]
        if not rows:
            return
        # Where a frame comes first, its row for guidance is read in the same pass.
        guided = [row for row in rows if row.draws and self._sampler(row).guidance_scale != 1.0]
        numbers, new = self._unconditional(guided)
        logits = self.cached.append([row.number for row in rows] + numbers, [row.prefix for row in rows] + new)
        for row, of_row in zip(rows, logits[: len(rows)], strict=True):
            row.logits = of_row

    def _sampler(self, row: _Row) -> FlowSampler:
        return row.request.sampler or self.decoder.sampler

    def _check_limits(self, row: _Row) -> None:
        request, tokens = row.request, self.decoder.vision.num_tokens
        written = sum(len(s) for s in row.answer.segments if isinstance(s, Text)) + len(row.text)
        # Counted by what is written: the newest token is not in the cache yet.
        held = Document(tuple(row.prefix), "prompt").length(tokens) + written + tokens * len(row.answer.latents)
        needed = tokens + 1 if row.draws else 1
        if row.draws and len(row.answer.latents) >= request.max_frames:
            row.end("frames")
        elif not row.draws and written >= request.max_tokens:
            row.end("tokens" if request.max_tokens else "frames")
        elif request.context is not None and held + needed > request.context:
            row.end("context")

    def _write(self, rows: list[_Row]) -> None:
        """One token for each of some rows."""
        t = self.tokenizer
        never = [t.pad_id, t.bos_id, t.eoi_id]
        chosen: dict[int, int] = {}
        for row in rows:
            assert row.logits is not None
            frames_left = len(row.answer.latents) < row.request.max_frames
            token = row.request.sampling.choose(row.logits, row.generator, never if frames_left else [*never, t.boi_id])
            if token == t.eos_id:
                row.end("eos")
                continue
            row.text.append(token)
            row.draws = token == t.boi_id
            if self._stop_text(row):
                row.end("text")
                continue
            chosen[row.number] = token
            self._check_limits(row)
        going_on = [row for row in rows if row.number in chosen and not row.ended]
        if going_on:
            numbers = [row.number for row in going_on]
            logits = self.cached.append_tokens(numbers, [chosen[n] for n in numbers])
            for row, of_row in zip(going_on, logits, strict=True):
                row.logits = of_row

    def _stop_text(self, row: _Row) -> bool:
        """Whether a stop text is there; it and what follows it are taken away."""
        if not row.request.stop:
            return False
        t = self.tokenizer
        opening = row.text[:1] if row.text[0] == t.eoi_id else []  # a delimiter, which no stop text is about
        text = t.decode([i for i in row.text[len(opening) :] if i != t.boi_id])
        places = [at for stop in row.request.stop if (at := text.find(stop)) >= 0]
        if places:
            row.text = opening + t.encode(text[: min(places)])
        return bool(places)

    def _draw(self, rows: list[_Row]) -> None:
        """One frame for each of some rows, those with the same sampler together."""
        for sampler in {id(s): s for s in map(self._sampler, rows)}.values():
            self._draw_with(sampler, [row for row in rows if self._sampler(row) is sampler])

    def _draw_with(self, sampler: FlowSampler, rows: list[_Row]) -> None:
        decoder, numbers = self.decoder, [row.number for row in rows]
        guided = sampler.guidance_scale != 1.0
        if guided:
            behind, new = self._unconditional(rows)
            if behind:
                self.cached.append(behind, new)
            numbers = numbers + [n + len(self.rows) for n in numbers]
        predict = self.cached.frame(numbers)

        def velocity(z: Tensor, t: Tensor) -> Tensor:
            doubled, timesteps = (torch.cat([z, z]), torch.cat([t, t])) if guided else (z, t)
            v = decoder.flow.velocity(predict(doubled, timesteps).float(), doubled, timesteps)
            if not guided:
                return v
            conditional, unconditional = v.chunk(2)
            return guide(conditional, unconditional, sampler.guidance_scale)

        shape = (decoder.vision.num_tokens, decoder.vision.channels)
        noise = torch.stack([self._noise(row, shape) for row in rows])
        latents = decoder.read_again(sampler.sample(velocity, noise, decoder.flow.noise_shift(*shape)))
        self._keep(rows, latents)

    def _noise(self, row: _Row, shape: tuple[int, int]) -> Tensor:
        device = self.decoder.device
        generator = torch.Generator(device).manual_seed(row.request.seed + len(row.answer.latents))
        return torch.randn(shape, generator=generator, device=device)

    def _unconditional(self, rows: list[_Row]) -> tuple[list[int], list[list[Segment]]]:
        """Which rows for guidance have something new to read, and what."""
        numbers, new = [], []
        for row in rows:
            row.close_text()
            held = [*row.prefix, *row.answer.segments]
            if row.unconditional < len(held):
                numbers.append(row.number + len(self.rows))
                new.append(self.decoder.without_text(held[row.unconditional :]))
                row.unconditional = len(held)
        return numbers, new

    def _keep(self, rows: list[_Row], latents: Tensor) -> None:
        """Add drawn frames to the answers, and to those rows that go on."""
        closing = Text(torch.tensor([self.tokenizer.eoi_id]))
        for row, of_row in zip(rows, latents, strict=True):
            row.close_text()
            row.answer.segments.append(Frame(of_row, clean=True))
            row.draws = False
            self._check_limits(row)
        going_on = [row for row in rows if not row.ended]
        if not going_on:
            return
        frames = [row.answer.segments[-1] for row in going_on]
        logits = self.cached.append([row.number for row in going_on], [[frame, closing] for frame in frames])
        for row, of_row in zip(going_on, logits, strict=True):
            row.text, row.logits = [self.tokenizer.eoi_id], of_row
            self._check_limits(row)


def _last_token(segments: Prefix) -> int | None:
    last = segments[-1]
    return int(last.ids[-1]) if isinstance(last, Text) and len(last) else None


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Rows grow with every call: compiled blocks would be compiled for length after length."""
    with torch.compiler.set_stance("force_eager"):
        yield

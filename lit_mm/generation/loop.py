"""The loop of decoding: text token by token; behind `<boi>` a frame, kept clean and closed with `<eoi>`; text again.

What rows hold is computed once (`CachedRows`), for guidance in a second row without the text, in the same batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.drawing import draw_frames, frame_noise
from lit_mm.generation.parts import ModelParts
from lit_mm.generation.request import Continuation, Prefix, Request, Stop, frame_seed
from lit_mm.generation.rows import CachedRows
from lit_mm.generation.sampling import choose_tokens
from lit_mm.sequence import Document, Frame, Segment, Text


@dataclass
class Row:
    """The state of one request."""

    request: Request
    number: int
    prefix: list[Segment]
    random: Random
    answer: Continuation
    logits: Tensor | None = None
    draws: bool = False  # a frame is next
    ended: bool = False
    text: list[int] = field(default_factory=list)  # of the answer, since its last frame
    unconditional: int = 0  # segments of prefix and answer that its row for guidance holds

    def close_text(self) -> None:
        """Add the text so far to the answer."""
        if self.text:
            self.answer.segments.append(Text(torch.tensor(self.text)))
            self.text = []

    def end(self, why: Stop) -> None:
        """Nothing is added any more."""
        self.close_text()
        self.ended, self.answer.stopped = True, why


class Generation:
    """Continues requests: rows 0 to n - 1 with their conditions, rows n to 2n - 1, for guidance, without.

    Args:
        parts: the model.
        requests: what to continue.
    """

    def __init__(self, parts: ModelParts, requests: Sequence[Request]) -> None:
        self.parts, self.tokenizer = parts, parts.tokenizer
        prefixes = parts.encode([request.prefix for request in requests])
        self.rows = [
            Row(request, n, prefix, Random(request.seed), Continuation())
            for n, (request, prefix) in enumerate(zip(requests, prefixes, strict=True))
        ]
        guided = any(row.request.max_frames and self._sampler(row).guidance_scale != 1.0 for row in self.rows)
        count = len(self.rows) * (2 if guided else 1)
        self.cached = CachedRows(parts.model, parts.vision, parts.flow, count)
        self.never = _never(parts)
        self.sharded = any(isinstance(parameter, DTensor) for parameter in parts.model.parameters())

    def run(self) -> list[Continuation]:
        """All answers."""
        for _ in self.steps():
            pass
        return [row.answer for row in self.rows]

    def steps(self) -> Iterator[Tensor | None]:
        """Go on token by token, and frame by frame step by step.

        Yields:
            After tokens nothing; after each step of a drawing its estimate (R, N, C), see `draw_frames`. What is
            written so far is in `rows`.
        """
        if not self.rows:
            return
        self._read_prefixes()
        while open_rows := [row for row in self.rows if not row.ended]:
            # Frames wait until no row has text to write, so that as many as possible are drawn together.
            writing = [row for row in open_rows if not row.draws]
            if writing:
                self._write(writing)
                yield None
            else:
                yield from self._draw(open_rows)

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

    def _sampler(self, row: Row) -> FlowSampler:
        return row.request.sampler or self.parts.sampler

    def _check_limits(self, row: Row) -> None:
        request, tokens = row.request, self.parts.vision.num_tokens
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

    def _write(self, rows: list[Row]) -> None:
        """One token for each of some rows."""
        chosen: dict[int, int] = {}
        for row, token in zip(rows, self.choose(rows), strict=True):
            if token == self.tokenizer.eos_id:
                row.end("eos")
                continue
            row.text.append(token)
            row.draws = token == self.tokenizer.boi_id
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

    def choose(self, rows: list[Row]) -> list[int]:
        """The next token of each: the only time in a step that the device is waited for."""
        logits = torch.stack([row.logits for row in rows if row.logits is not None])
        never = torch.stack([self.never[int(len(row.answer.latents) < row.request.max_frames)] for row in rows])
        samplings, uniform = [row.request.sampling for row in rows], [row.random.random() for row in rows]
        tokens = choose_tokens(logits.masked_fill(never, -torch.inf), samplings, uniform)
        if self.sharded:
            # Every pass gathers weights from all processes. One that read another token would end at another pass.
            dist.broadcast(tokens, src=0)
        return tokens.tolist()

    def _stop_text(self, row: Row) -> bool:
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

    def _draw(self, rows: list[Row]) -> Iterator[Tensor]:
        """One frame for each of some rows, those with the same sampler together."""
        for sampler in {id(s): s for s in map(self._sampler, rows)}.values():
            yield from self._draw_with(sampler, [row for row in rows if self._sampler(row) is sampler])

    def _draw_with(self, sampler: FlowSampler, rows: list[Row]) -> Iterator[Tensor]:
        parts, numbers = self.parts, [row.number for row in rows]
        unguided: list[int] = []
        if sampler.guidance_scale != 1.0:
            behind, new = self._unconditional(rows)
            if behind:
                self.cached.append(behind, new)
            unguided = [n + len(self.rows) for n in numbers]
        seeds = [frame_seed(row.request.seed, len(row.answer.latents)) for row in rows]
        noise = torch.stack([frame_noise(parts, seed) for seed in seeds])
        for latents in draw_frames(parts, self.cached, numbers, unguided, noise, sampler):
            yield latents
        self._keep(rows, parts.read_again(latents))

    def _unconditional(self, rows: list[Row]) -> tuple[list[int], list[list[Segment]]]:
        """Which rows for guidance have something new to read, and what."""
        numbers, new = [], []
        for row in rows:
            row.close_text()
            held = [*row.prefix, *row.answer.segments]
            if row.unconditional < len(held):
                numbers.append(row.number + len(self.rows))
                new.append(self.parts.without_text(held[row.unconditional :]))
                row.unconditional = len(held)
        return numbers, new

    def _keep(self, rows: list[Row], latents: Tensor) -> None:
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


def _never(parts: ModelParts) -> Tensor:
    """(2, vocabulary) bool, tokens that cannot come next: where no frame is left to draw, and where one is."""
    t = parts.tokenizer
    never = torch.zeros(2, parts.model.backbone.embedding.num_embeddings, dtype=torch.bool)
    never[:, [t.pad_id, t.bos_id, t.eoi_id]] = True
    never[0, t.boi_id] = True
    return never.to(parts.device)

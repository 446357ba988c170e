"""What decoding costs: text with and without its cache, a roll-out beside its forward passes, and memory.

The tiny model with random weights, on one thread.

Run: `python -m tests.benchmarks.decoding`
"""

from __future__ import annotations

from typing import Any

import torch
from rich.table import Table
from torch import nn

from lit_mm.backbone import ModalityFeedForward, Transformer
from lit_mm.flow.matching import FlowMatching
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.request import Request
from lit_mm.generation.roll_out import RollOut, roll_out, shown
from lit_mm.generation.rows import CachedRows
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.sequence import Text
from lit_mm.tokenizer import Tokenizer
from lit_mm.vision import Rae
from tests.benchmarks.interleaved import interleaved
from tests.benchmarks.report import finish, options
from tests.helpers.uncached import Uncached

TOKENIZER = "data/tiny/tokenizer.json"
FRAMES = 4  # of a roll-out, whose context is encoded once
CONTEXTS = (256, 512, 1024)


def decoders() -> tuple[Decoder, Uncached]:
    """The model of configs/model/tiny.yaml, in both decoders."""
    torch.manual_seed(0)
    backbone = Transformer(8192, 256, 6, 4, 2, lambda dim: ModalityFeedForward(dim, 768))
    vision = Rae(folder="rae_tiny")
    model = MultimodalTransformer(backbone, 8192, vision.channels).eval()
    nn.init.normal_(model.velocity_head.linear.weight, std=0.02)
    tokenizer = Tokenizer(TOKENIZER)
    nn.init.zeros_(model.text_head.linear.weight[tokenizer.eos_id])  # some other token is likelier: answers go on
    parts = model, vision, FlowMatching(), FlowSampler("euler", 25, 3.0), tokenizer
    return Decoder(*parts), Uncached(*parts)


def text_tasks(decoder: Decoder, uncached: Uncached, tokens: int) -> dict[str, Any]:
    """An answer of so many tokens, written greedily."""
    t = decoder.tokenizer
    prefix = [Text(t.ids(t.bos_id, "The people"))]
    request = Request(prefix, max_tokens=tokens)
    answers: dict[str, list[int]] = {}

    def with_cache(number: int) -> None:
        answers["cached"] = decoder.generate([request])[0].ids

    def without(number: int) -> None:
        written = uncached.continue_row(prefix, lambda possible, number: int(possible.argmax()), max_tokens=tokens)
        assert [int(s.ids) for s in written.segments if isinstance(s, Text)] == answers.get("cached", [])
        assert len(written.segments) == tokens

    return {"cached": with_cache, "uncached": without}


@torch.no_grad()
def frame_tasks(decoder: Decoder) -> dict[str, Any]:
    """Frames from the last four and an action each, as pictures, and the forward passes of their denoising."""
    t, vision, sampler = decoder.tokenizer, decoder.vision, decoder.sampler
    generator = torch.Generator().manual_seed(0)
    size = vision.image_size
    context = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8, generator=generator)
    rows = CachedRows(decoder.model, vision, decoder.flow, 2)
    prefix = decoder.encode([shown(t, context, [t.bos_id], ["move forward", t.boi_id])])[0]
    rows.append([0, 1], [prefix, decoder.without_text(prefix)])
    predict = rows.frame([0, 1])
    noise = torch.randn(2, vision.num_tokens, vision.channels, generator=generator)
    times = sampler.timesteps(decoder.flow.noise_shift(vision.num_tokens, vision.channels))[:-1]

    def frames(number: int) -> None:
        decoder.decode(roll_out(decoder, [RollOut(context, ["move forward"] * FRAMES, number)])[0])

    @torch.no_grad()
    def passes(number: int) -> None:
        for time in times.repeat(FRAMES):
            predict(noise, time.expand(2))

    return {f"roll-out of {FRAMES} frames": frames, "its passes": passes}


def main() -> None:
    """Print a table and write it as JSON."""
    arguments = options(__doc__, "decoding", tokens=512, rounds=3).parse_args()
    torch.set_num_threads(1)
    decoder, uncached = decoders()
    table = Table("what", "seconds", "beside", "seconds", "ratio")
    found: dict[str, Any] = {}
    pairs = [
        (text_tasks(decoder, uncached, arguments.tokens), 0, arguments.rounds),
        (frame_tasks(decoder), 2, 5 * arguments.rounds),
    ]
    for tasks, warm_up, rounds in pairs:
        seconds = {name: min(times) for name, times in interleaved(tasks, rounds, warm_up).items()}
        (one, one_time), (other, other_time) = seconds.items()
        factor = max(one_time, other_time) / min(one_time, other_time)
        found |= {**seconds, f"{one}/{other}": one_time / other_time}
        table.add_row(one, f"{one_time:.3f}", other, f"{other_time:.3f}", f"{factor:.2f}")
    for context in CONTEXTS:
        cache = decoder.model.backbone.new_cache(1, decoder.model.compute_dtype)
        cache.reserve(context)
        size = cache.memory.numel() * cache.memory.element_size()
        found[f"bytes at {context}"] = size
        table.add_row(f"cache of {context} positions", "", f"{size / 2**20:.2f} MiB a row", "", "")
    finish(table, found, arguments.out)


if __name__ == "__main__":
    main()

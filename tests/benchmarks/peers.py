"""A training step beside that of `transfusion-pytorch` and of a plain transformer, on the same documents.

Four documents of 128 text ids and a frame of 64 visual tokens each, in float32. At equal width all have width 256, depth
4 and an inner width of 682 (the peer) or 688; with as many parameters they have the peer's 14.3 M, of which the peer
spends most in layers that are modulated by the timestep. The plain transformer has no masks, no packing and no
modalities: it is the least that a step can cost in PyTorch.

Run: `python -m tests.benchmarks.peers`, after `pip install 'lit-mm[benchmarks]'` or `make test`; the compiled step needs
a C++ compiler, and is left out without one.
"""

from __future__ import annotations

import shutil
import statistics
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from lit_mm.backbone import DenseFeedForward, ExpertFeedForward, FeedForward, ModalityFeedForward
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, Frame, PackedBatch, PackedRow, Text
from tests.benchmarks.interleaved import interleaved, ratio
from tests.benchmarks.our_model import Size, TrainingStep, lit_model
from tests.benchmarks.plain_transformer import PlainTransformer
from tests.benchmarks.report import finish, options

DOCUMENTS, TEXT, SIDE, CHANNELS, VOCABULARY = 4, 128, 8, 64, 8192
TOKENS = DOCUMENTS * (TEXT + SIDE * SIDE)  # of a step; delimiters are not counted
PEER = "transfusion-pytorch"
AS_MANY = "as many parameters"
PLAIN = {"equal width": "plain", AS_MANY: f"plain, {AS_MANY}"}


class OtherStep:
    """Forward, backward, clipping and AdamW of a model that returns its loss."""

    def __init__(self, model: nn.Module, loss: Callable[[], Tensor]) -> None:
        self.parameters, self.loss = list(model.parameters()), loss
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, fused=True)

    def __call__(self, number: int) -> None:
        """Train on the documents."""
        self.loss().backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def documents() -> tuple[Tensor, Tensor]:
    """Text ids (documents, 128) and latents (documents, 8, 8, 64), at random."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(16, VOCABULARY, (DOCUMENTS, TEXT), generator=generator)
    return ids, torch.randn(DOCUMENTS, SIDE, SIDE, CHANNELS, generator=generator)


def packed(ids: Tensor, latents: Tensor) -> PackedBatch:
    """The documents as ours: a row each, with delimiters."""
    bos, boi, eoi, eos = torch.arange(4)[:, None]
    rows = []
    for number, (text, frame) in enumerate(zip(ids, latents, strict=True)):
        opening, closing = Text(torch.cat([bos, text, boi])), Text(torch.cat([eoi, eos]))
        rows.append(PackedRow((Document((opening, Frame(frame.flatten(0, 1)), closing), "pairs"),), number, number))
    return pack_rows(
        rows, length=TEXT + SIDE**2 + 4, tokens_per_frame=SIDE**2, image_size=0, pad_id=4, sources=("pairs",)
    )


def peer(ids: Tensor, latents: Tensor) -> OtherStep:
    """`transfusion-pytorch` at width 256 and depth 4."""
    from transfusion_pytorch import Transfusion

    transformer = {"dim": 256, "depth": 4, "dim_head": 64, "heads": 4}
    model = Transfusion(
        num_text_tokens=VOCABULARY, dim_latent=CHANNELS, modality_default_shape=(SIDE, SIDE), transformer=transformer
    )
    samples = [[text, frame] for text, frame in zip(ids, latents, strict=True)]
    return OtherStep(model, lambda: model(samples))


def plain(ids: Tensor, latents: Tensor, dim: int, depth: int, heads: int, hidden: int) -> OtherStep:
    """A plain transformer on the same."""
    model = PlainTransformer(dim, depth, heads, hidden, VOCABULARY, CHANNELS, TEXT + SIDE**2)
    return OtherStep(model, partial(model, ids, latents.flatten(1, 2)))


def ours(batch: PackedBatch, feed_forward: Callable[[int], FeedForward], *widths: int, compile: bool = False) -> Any:
    """Our step at a width, a depth and a number of heads, with as many for keys as for queries, as the others have."""
    dim, depth, heads = widths
    size = Size(dim, depth, heads, heads, VOCABULARY, SIDE**2, CHANNELS)
    return TrainingStep(lit_model(size, feed_forward, compile=compile), [batch])


def tasks() -> dict[str, Any]:
    """All steps by name."""
    ids, latents = documents()
    batch = packed(ids, latents)
    torch.manual_seed(0)
    dense, modality = partial(DenseFeedForward, hidden_dim=688), partial(ModalityFeedForward, hidden_dim=688)
    experts = partial(ExpertFeedForward, experts=8, active=3, granularity=4, shared="none")
    steps = {
        PEER: peer(ids, latents),
        PLAIN["equal width"]: plain(ids, latents, 256, 4, 4, 688),
        "dense": ours(batch, dense, 256, 4, 4),
        "modality": ours(batch, modality, 256, 4, 4),
        "8 experts, top 3": ours(batch, experts, 256, 4, 4),
        PLAIN[AS_MANY]: plain(ids, latents, 384, 5, 6, 832),
        f"dense, {AS_MANY}": ours(batch, partial(DenseFeedForward, hidden_dim=832), 384, 5, 6),
        f"modality, {AS_MANY}": ours(batch, partial(ModalityFeedForward, hidden_dim=720), 320, 5, 5),
        f"8 experts, top 3, {AS_MANY}": ours(batch, experts, 256, 6, 4),
    }
    if shutil.which("c++"):
        steps["dense, compiled"] = ours(batch, dense, 256, 4, 4, compile=True)
    return steps


def main() -> None:
    """Print a table and write it as JSON."""
    parser = options(__doc__, "peers", rounds=15, threads=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")
    steps = tasks()
    seconds = interleaved(steps, arguments.rounds)
    table = Table("step", "parameters (M)", "median (ms)", "minimum (ms)", "tokens/s", "peer / this", "this / plain")
    found = {}
    for name, step in steps.items():
        beside = PLAIN[AS_MANY if AS_MANY in name else "equal width"]
        row = {
            "parameters": sum(p.numel() for p in step.parameters),
            "median_seconds": statistics.median(seconds[name]),
            "minimum_seconds": min(seconds[name]),
            "tokens_per_second": TOKENS / statistics.median(seconds[name]),
            "times_as_fast_as_peer": ratio(seconds[PEER], seconds[name]),
            "times_as_long_as_plain": ratio(seconds[name], seconds[beside]),
        }
        found[name] = row
        milliseconds = f"{1e3 * row['median_seconds']:.0f}", f"{1e3 * row['minimum_seconds']:.0f}"
        ratios = f"{row['times_as_fast_as_peer']:.2f}", f"{row['times_as_long_as_plain']:.2f}"
        table.add_row(
            name, f"{row['parameters'] / 1e6:.1f}", *milliseconds, f"{row['tokens_per_second']:,.0f}", *ratios
        )
    finish(table, found, arguments.out)


if __name__ == "__main__":
    main()

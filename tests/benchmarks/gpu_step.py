"""A training step on one GPU at real sizes: tokens a second, model FLOPs utilisation, peak memory.

Four packed rows of 4,096 positions, half text, half frames of SigLIP 2 So400m (256 tokens of 1,152 channels), bfloat16
autocast, compiled blocks: 0.3 B and 1.5 B parameters, dense and modality, and 64 experts with 0.3 B active. Then the same
with the real So400m, random weights, encoding the pictures in every step.

Run: `python -m tests.benchmarks.gpu_step`. Without a GPU it runs small models on a CPU, to show that it works; FLOPs are
then not compared with a peak.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.table import Table

from lit_mm.backbone import DenseFeedForward, ExpertFeedForward, FeedForward, ModalityFeedForward
from lit_mm.packing import pack_rows
from lit_mm.parallel.memory import peak_memory
from lit_mm.sequence import Document, Frame, PackedBatch, PackedRow, Text
from lit_mm.training.flops import TrainingFlops, attended_pairs, peak
from lit_mm.vision import Rae, VisualTokenizer
from tests.benchmarks.our_model import GivenLatents, Size, TrainingStep, lit_model
from tests.benchmarks.report import finish, options

TEXT = 500  # ids of a text, so that a row of 4,096 holds four texts and eight frames
SMALL = Size(1024, 16, 16, 4, 32_768, 256, 1152)
PAPER = Size(2048, 16, 32, 8, 128_256, 256, 1152)
TOY = Size(128, 2, 4, 2, 1024, 16, 24)
FeedForwards = dict[str, tuple[Size, Callable[[int], FeedForward]]]
MODELS: FeedForwards = {
    "0.3 B, dense": (SMALL, partial(DenseFeedForward, hidden_dim=4096)),
    "0.3 B, modality": (SMALL, partial(ModalityFeedForward, hidden_dim=4096)),
    "0.3 B active of 1.7 B, 64 experts": (SMALL, partial(ExpertFeedForward, experts=64, active=8, granularity=8)),
    "1.5 B, dense": (PAPER, partial(DenseFeedForward, hidden_dim=8192)),
    "1.5 B, modality": (PAPER, partial(ModalityFeedForward, hidden_dim=8192)),
}
TOYS: FeedForwards = {
    "toy, dense": (TOY, partial(DenseFeedForward, hidden_dim=256)),
    "toy, modality": (TOY, partial(ModalityFeedForward, hidden_dim=256)),
    "toy, experts": (TOY, partial(ExpertFeedForward, experts=8, active=2, granularity=4)),
}


def so400m() -> VisualTokenizer:
    """The real encoder with random weights."""
    name = "vit_so400m_patch14_siglip_224.v2_webli"
    return Rae(folder=None, encoder=name, image_size=224, pretrained=False, encoder_args={"act_layer": "gelu_tanh"})


def batch_of(size: Size, rows: int, length: int, pixels: int | None = None) -> PackedBatch:
    """Texts and documents of two frames in turns, as latents, or as pictures of so many pixels."""
    generator = torch.Generator().manual_seed(0)

    def frame() -> Frame:
        if pixels is not None:
            return Frame(torch.randint(0, 256, (3, pixels, pixels), generator=generator, dtype=torch.uint8))
        return Frame(torch.randn(size.tokens_per_frame, size.channels, generator=generator))

    text_length = min(TEXT, 2 * size.tokens_per_frame)
    packed = []
    for number in range(rows):
        documents: list[Document] = []
        left = length
        while left:
            ids = torch.randint(4, size.vocabulary, (min(left, text_length),), generator=generator)
            document = Document((Text(ids),), "text")
            if len(documents) % 2 and left >= 2 * size.tokens_per_frame + 6:
                edges = [Text(torch.tensor(e), loss=False) for e in ((0, 1), (2, 1), (2, 3))]
                document = Document((edges[0], frame(), edges[1], frame(), edges[2]), "video")
            documents.append(document)
            left -= document.length(size.tokens_per_frame)
        packed.append(PackedRow(tuple(documents), number, number))
    return pack_rows(
        packed,
        length=length,
        tokens_per_frame=size.tokens_per_frame,
        image_size=pixels or 0,
        pad_id=0,
        sources=("text", "video"),
    )


def measure(
    size: Size, feed_forward: Callable[[int], FeedForward], device: str, arguments: Any, vision: VisualTokenizer
) -> dict[str, Any]:
    """Steps of one model, which is gone afterwards."""
    pixels = None if isinstance(vision, GivenLatents) else vision.image_size
    with torch.device(device):
        module = lit_model(size, feed_forward, vision, compile=device == "cuda", compute_dtype=torch.bfloat16).to(
            device
        )
    batch = batch_of(size, arguments.rows, arguments.row_length, pixels)
    if device == "cuda":
        batch = batch.pin_memory()
        torch.cuda.reset_peak_memory_stats()
    step = TrainingStep(module, [batch])
    times = []
    for number in range(arguments.warm_up + arguments.steps):
        begin = time.perf_counter()
        step(number)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    seconds = statistics.median(times[arguments.warm_up :])
    flops_of = TrainingFlops.of(module.model)
    flops = flops_of.of_batch(batch) + flops_of.pair * float(attended_pairs(batch))
    most = peak(torch.cuda.get_device_name()) if device == "cuda" else None
    return {
        "parameters": sum(p.numel() for p in module.model.parameters()),
        "seconds": seconds,
        "tokens_per_second": batch.tokens.numel() / seconds,
        "teraflops_per_second": flops / seconds / 1e12,
        "utilisation": None if most is None else flops / seconds / most,
        "peak_gib": peak_memory(torch.device(device)) / 2**30,
        "frames": len(batch.frames),
    }


def main() -> None:
    """Print a table and write it as JSON."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = device == "cuda"
    parser = options(
        __doc__, "gpu_step", rows=4, row_length=4096 if on_gpu else 512, warm_up=5 if on_gpu else 1, steps=10
    )
    parser.add_argument("--only", default="", help="only models whose names contain this")
    arguments = parser.parse_args()
    models = {name: model for name, model in (MODELS if on_gpu else TOYS).items() if arguments.only in name}
    table = Table("model", "parameters (M)", "pictures", "step (ms)", "tokens/s", "TFLOP/s", "MFU", "peak (GiB)")
    results: dict[str, Any] = {}
    for name, (size, feed_forward) in models.items():
        tokenizers: dict[str, Callable[[], VisualTokenizer]] = {
            "cached": partial(GivenLatents, size.tokens_per_frame, size.channels)
        }
        if on_gpu:
            tokenizers["encoded in the loop"] = so400m
        for pictures, vision in tokenizers.items():
            found = measure(size, feed_forward, device, arguments, vision())
            results[f"{name}, {pictures}"] = found
            utilisation = "" if found["utilisation"] is None else f"{found['utilisation']:.1%}"
            table.add_row(
                name,
                f"{found['parameters'] / 1e6:,.0f}",
                f"{found['frames']}, {pictures}",
                f"{1e3 * found['seconds']:.0f}",
                f"{found['tokens_per_second']:,.0f}",
                f"{found['teraflops_per_second']:.2f}",
                utilisation,
                f"{found['peak_gib']:.1f}",
            )
    finish(table, results, arguments.out)


if __name__ == "__main__":
    main()

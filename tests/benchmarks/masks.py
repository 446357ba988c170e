"""What a mask costs to build and to attend under, by kind of row, row length and backend.

Rows hold texts of 512 tokens, frames of 256 in documents of four, or one after the other. Heads are the paper's: 32 of
width 64 with 8 for keys. On a GPU FlexAttention beside SDPA with a dense mask, from 1k to 32k positions, in bfloat16; on
a CPU our blocks beside SDPA, up to 4k, in float32.

Run: `python -m tests.benchmarks.masks`
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from lit_mm.backbone.layout import SequenceLayout
from lit_mm.backbone.masks import AttentionBackend, build_mask
from tests.benchmarks.report import finish, options

HEADS, KV_HEADS, HEAD_DIM = 32, 8, 64
TEXT, FRAME, FRAMES = 512, 256, 4  # tokens of a text and of a frame, frames of a document
KINDS = ("text", "half", "frames")
ON_GPU: tuple[AttentionBackend, ...] = ("flex", "sdpa")
ON_CPU: tuple[AttentionBackend, ...] = ("blocks", "sdpa")


def layout_of(kind: str, length: int, device: str) -> SequenceLayout:
    """One row of texts, of frames, or of both in turns."""
    texts, frames = [(-1, TEXT)], [(number, FRAME) for number in range(FRAMES)]
    documents = {"text": [texts], "frames": [frames], "half": [texts, texts, frames]}[kind]
    document: list[int] = []
    frame: list[int] = []
    seen = number = 0
    while len(document) < length:
        of_this = documents[number % len(documents)]
        for which, tokens in of_this:
            frame += [which if which < 0 else seen + which] * tokens
            document += [number] * tokens
        seen += sum(which >= 0 for which, _ in of_this)
        number += 1
    ids = torch.tensor([document[:length], frame[:length]], dtype=torch.int32, device=device)
    return SequenceLayout(ids[:1], ids[1:], torch.arange(length, device=device)[None])


def seconds_of(task: Callable[[], Any], device: str, repeats: int) -> float:
    """Median over repeats, after two more that compile and warm up; a GPU is waited for."""
    times = []
    for _ in range(2 + repeats):
        _wait(device)
        begin = time.perf_counter()
        task()
        _wait(device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[2:])


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure(layout: SequenceLayout, backend: AttentionBackend, device: str, repeats: int) -> dict[str, float]:
    """Seconds to build the mask, and of one layer's attention, forward and backward."""
    length = layout.positions.shape[1]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32

    def heads(count: int) -> Tensor:
        return torch.randn(1, length, count, HEAD_DIM, device=device, dtype=dtype).transpose(1, 2).requires_grad_()

    query, key, value = heads(HEADS), heads(KV_HEADS), heads(KV_HEADS)
    gradient = torch.randn_like(query)
    mask = build_mask(layout, backend)
    return {
        "build": seconds_of(lambda: build_mask(layout, backend), device, repeats),
        "attend": seconds_of(lambda: mask.attend(query, key, value).backward(gradient), device, repeats),
    }


def main() -> None:
    """Print a table and write it as JSON."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = options(__doc__, "masks", repeats=5, longest=32_768 if device == "cuda" else 4096)
    arguments = parser.parse_args()
    backends = ON_GPU if device == "cuda" else ON_CPU
    names = (f"{backend} {what} (ms)" for backend in backends for what in ("build", "attend"))
    table = Table("row", "positions", "pairs allowed", *names, f"{backends[1]} / {backends[0]}")
    results: list[dict[str, Any]] = []
    for kind in KINDS:
        length = 1024
        while length <= arguments.longest:
            layout = layout_of(kind, length, device)
            allowed = float(build_mask(layout, "sdpa").allowed.float().mean())  # type: ignore[attr-defined]
            found = {backend: measure(layout, backend, device, arguments.repeats) for backend in backends}
            factor = sum(found[backends[1]].values()) / sum(found[backends[0]].values())
            results.append({"kind": kind, "positions": length, "allowed": allowed, "seconds": found, "factor": factor})
            times = (f"{1e3 * found[b][what]:.2f}" for b in backends for what in ("build", "attend"))
            table.add_row(kind, f"{length:,}", f"{allowed:.1%}", *times, f"{factor:.2f}")
            length *= 2
    finish(table, results, arguments.out)


if __name__ == "__main__":
    main()

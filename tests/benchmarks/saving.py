"""How long training waits for a checkpoint: written at once, and in the background.

Run: `python -m tests.benchmarks.saving --out runs/saving.json`. In the background training waits for a copy in memory;
how much writing slows down the steps meanwhile is not counted here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from lit_mm.parallel import CheckpointFiles
from tests.benchmarks.interleaved import ratio


def main() -> None:
    """Save in turns, print the ratio and, if asked, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; none by default")
    parser.add_argument("--million_parameters", type=int, default=50, help="of the model, with two moments each")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    tensors = {f"{kind}.{i}": torch.randn(1_000_000) for kind in "pmv" for i in range(args.million_parameters)}
    seconds: dict[str, list[float]] = {"at once": [], "in the background": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.ckpt"
        for _ in range(args.rounds):
            for times, background in zip(seconds.values(), (False, True), strict=True):
                files = CheckpointFiles(background)
                begin = time.perf_counter()
                files.save_checkpoint({"state_dict": tensors}, path)
                times.append(time.perf_counter() - begin)
                files.teardown()
    waited = ratio(seconds["in the background"], seconds["at once"])
    size = 12 * args.million_parameters / 1000
    for name, times in seconds.items():
        print(f"{name}: {statistics.median(times):.2f} s for {size:.1f} GB")
    print(f"training waits {waited:.2f} times as long in the background (median of {args.rounds} rounds)")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"gigabytes": size, "seconds": seconds, "ratio": waited}, indent=2) + "\n")


if __name__ == "__main__":
    main()

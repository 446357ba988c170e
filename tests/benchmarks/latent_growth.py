"""What knowing latents by their pictures costs: to number pictures, to find their latents and to begin again.

Seconds are of a core. Frames of videos of 1,000 frames each; latents of 2 bytes, as reading them is not what grows.

Run: `python -m tests.benchmarks.latent_growth`
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from rich.table import Table

from data_modules.index.shared_folder import SharedFolder
from data_modules.reading.frame_keys import FRAME_BITS, MAX_FRAME
from data_modules.reading.latent_shards import ENDING, Encoder, write_shard
from data_modules.reading.latent_store import LatentStore
from data_modules.reading.latent_table import look_for
from data_modules.reading.picture_identity import Identifier, by_group, numbers_within
from tests.benchmarks.report import finish, options

FRAMES = 1000  # of a video
PICTURES = 1 << 17  # of a file of latents
READS = 1000
ENCODER = Encoder("none", 1, 1, "float16")
Result = TypeVar("Result")


def measure(count: int) -> dict[str, float]:
    """Seconds of a core with so many pictures, and MB of the process at its largest."""
    keys = (np.arange(count) // FRAMES << FRAME_BITS) | np.arange(count) % FRAMES
    identifier = Identifier("/videos", 64)

    def numbers() -> np.ndarray:
        return by_group(
            keys >> FRAME_BITS,
            lambda row, some: numbers_within(identifier.file(f"/videos/{row}.mp4", 1, row), keys[some] & MAX_FRAME),
        )

    with tempfile.TemporaryDirectory() as folder:
        shards, cache = SharedFolder(f"{folder}/latents", ENDING, "folder"), Path(folder) / "cache"
        numbering, identities = _timed(numbers)
        for start in range(0, count, PICTURES):
            some = identities[start : start + PICTURES]
            write_shard(shards, ENCODER, some, torch.zeros(len(some), 1, 1), {})
        finding, found = _timed(lambda: look_for(keys, identities, shards, ENCODER, cache, None))
        again, _ = _timed(lambda: look_for(keys, identities, shards, ENCODER, cache, None))
        store = LatentStore(found.table, ENCODER)
        wanted = np.random.default_rng(0).choice(keys, READS).tolist()
        reading, _ = _timed(lambda: [store.read([key]) for key in wanted])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {
        "numbering_seconds": numbering,
        "finding_seconds": finding,
        "again_seconds": again,
        "read_microseconds": reading / READS * 1e6,
        "peak_mb": peak,
    }


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def main() -> None:
    """Print a table and write it as JSON."""
    parser = options(__doc__, "latent_growth")
    parser.add_argument("--pictures", nargs="+", type=int, default=[10**5, 10**6, 10**7])
    arguments = parser.parse_args()
    found = {str(count): measure(count) for count in arguments.pictures}
    table = Table("pictures", "numbered (s)", "latents found (s)", "a next start (s)", "one read (µs)", "peak (MB)")
    for count, row in found.items():
        seconds = (f"{row[name]:.2f}" for name in ("numbering_seconds", "finding_seconds", "again_seconds"))
        table.add_row(count, *seconds, f"{row['read_microseconds']:.0f}", f"{row['peak_mb']:.0f}")
    finish(table, found, arguments.out)


if __name__ == "__main__":
    main()

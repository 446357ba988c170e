"""How data at web scale costs: making indexes, starting, reading one document, planning; beside what others do.

Run: `python -m tests.benchmarks.data_growth`, after `make data`. Times but those of loaders and of several cores are of
one core, as the processor counts them, so that others who use the machine do not matter. Sources of 10^5 texts and more
that are started are made up: their indexes are real, and their files are not there. Libraries to compare with that are
not installed are named and left out (`pip install datasets webdataset wids mosaicml-streaming litdata`).
"""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.dataset import Draw
from data_modules.image_text import ImageTextDataModule
from data_modules.index.indexed_texts import IndexedTexts
from data_modules.index.making import cores
from data_modules.index.ranges import RangeReader
from data_modules.index.sidecars import Sidecar
from data_modules.index.text_view import TextView
from data_modules.mixing.permutation import permute_in_windows
from data_modules.mixing.rows import RowReader
from data_modules.mixing.sampler import DrawStream, RowPlanner
from data_modules.reading.lengths import MappedLengths
from data_modules.text import TextDataset
from tests.benchmarks import data_growth_inputs as inputs
from tests.benchmarks import data_growth_peers as others
from tests.benchmarks import data_growth_tables as tables
from tests.benchmarks.data_growth_rates import rates
from tests.benchmarks.data_growth_ready import (
    KINDS,
    Row,
    document_format,
    index_on_cores,
    readiness,
    seconds_a_read,
)
from tests.benchmarks.report import finish, options
from tests.helpers.documents import FakeDataset
from tests.helpers.web_server import Server

STEP = 7680  # pictures of a step


def in_a_child(measure: Callable[[], Row]) -> Row:
    """What is measured in a process of its own, and by how much it grows: bytes that it alone holds."""
    receive, send = os.pipe()
    gc.collect()
    gc.freeze()  # as workers are born: what they share with their parent is not looked through
    if not os.fork():
        before = _own_memory()
        found = measure()
        os.write(send, pickle.dumps({**found, "bytes": float(_own_memory() - before)}))
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        found = pickle.loads(pipe.read())
    os.wait()
    gc.unfreeze()
    return found


def _own_memory() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")) * 1024


def start(sidecars: list[Sidecar], folder: Path) -> Row:
    """Seconds until a warm start has its first batch of eight rows, and of a read."""
    begin, wall = time.process_time(), time.perf_counter()
    dataset = TextDataset("x", IndexedTexts(TextView(sidecars, 512, folder)), 0)
    planner = RowPlanner({"x": DrawStream("x", dataset, 0, window=1 << 16)}, {"x": 1.0}, 4096, 0)
    reader = RowReader({"x": dataset}, document_format(), 4096, "raise")
    reader.read([planner.next_row() for _ in range(8)], {})
    found = {"seconds": time.process_time() - begin, "wall": time.perf_counter() - wall}
    return {**found, "read": seconds_a_read(lambda i: dataset.document(Draw(i, 0, 0)), len(dataset))}


def starts(sizes: list[int]) -> dict[int, Row]:
    """Of sources that are larger and larger."""
    found = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            begin = time.process_time()
            sidecars = inputs.made_up_source(folder, size)
            making = (time.process_time() - begin) / size
            mapped = float(inputs.bytes_of(folder / "views") / size)
            found[size] = {**in_a_child(lambda s=sidecars, f=folder: start(s, f)), "view": making, "mapped": mapped}
    return found


def planning(documents: int, ranks: int, rows: int = 4, length: int = 4096) -> Row:
    """Seconds of a worker to plan a step of all ranks, from lengths in a file without contents."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "lengths.npy"
        np.lib.format.open_memmap(file, "w+", np.uint16, (documents,)).flush()
        dataset = FakeDataset("x", [1], splittable=True)
        dataset.lengths = MappedLengths(file, (True,), (300,), 0)  # type: ignore[assignment]

        def plan() -> Row:
            planner = RowPlanner({"x": DrawStream("x", dataset, 0, window=1 << 16)}, {"x": 1.0}, length, 0)
            begin = time.process_time()
            for _ in range(ranks * rows):
                planner.next_row()
            return {"seconds": time.process_time() - begin}

        return in_a_child(plan)


def shards_a_step(documents: int, window: int | None) -> int:
    """Tars of 1,000 that a step's pictures lie in."""
    drawn = permute_in_windows(np.arange(10**6, 10**6 + STEP), documents, 1, window)
    return len(np.unique(drawn // inputs.A_SHARD))


def over_http(folder: Path, count: int = 100) -> Row:
    """Bytes that a server sends for each byte of pictures that is used, and how many requests it is busy with."""
    with Server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        module = ImageTextDataModule(f"{server.url}/00000.tar")
        with tempfile.TemporaryDirectory() as kept:
            module.cache = Path(kept)
            dataset: Any = module.dataset("train", "x", document_format())
            places = [dataset.pictures._place(i) for i in range(0, len(dataset), max(1, len(dataset) // count))]
            indexing, server.sent, server.wait, server.most = server.sent, 0, 0.02, 0
            ranges = RangeReader()
            for place in places:
                ranges.ahead(*place)
            used = sum(len(ranges.read(*place)) for place in places)
        server.shutdown()
        tar = (folder / "00000.tar").stat().st_size
        return {"sent": server.sent / used, "at_once": server.most, "indexing": indexing / tar}


def ready(root: Path, most: dict[str, int]) -> dict[str, dict[str, dict[int, Row]]]:
    """`readiness` of every kind, by library and by how many documents there are; files are left for `over_http`."""
    found: dict[str, dict[str, dict[int, Row]]] = {}
    for name, kind in KINDS.items():
        for count in (most[name] // 10, most[name]):
            path = kind.write(root / name.replace(" ", "_") / f"{count}{kind.ending}", count)
            for library, row in readiness(path, kind, count).items():
                found.setdefault(name, {}).setdefault(library, {})[count] = row
            if count == most[name]:
                wall = {n: index_on_cores(path, kind, set(sorted(os.sched_getaffinity(0))[:n])) for n in (1, cores())}
                found[name]["lit-mm"][count] |= {f"on {n} cores": seconds / count for n, seconds in wall.items()}
    return found


def main() -> None:
    """Print a table and write it as JSON, and as Markdown beside."""
    parser = options(__doc__, "data_growth", texts=100_000, pictures=10_000, videos=1000, largest=10**8, seconds=20)
    given = parser.parse_args()
    missing = [name for name in others.LIBRARIES if not others.installed(name)]
    results: dict[str, Any] = {"missing": missing}
    root = Path(tempfile.mkdtemp())
    try:
        texts, pairs = ("JSON Lines", "Parquet of texts"), ("tars", "Parquet of pictures")
        most = dict.fromkeys(texts, given.texts) | dict.fromkeys(pairs, given.pictures) | {"videos": given.videos}
        results["ready"] = ready(root, most)
        results["over HTTP"] = over_http(root / f"tars/{given.pictures}")
        shutil.rmtree(root)
        results["a second"] = rates(root, given.pictures, given.texts, given.videos, given.seconds)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    results["start"] = starts([10**n for n in range(5, 9) if 10**n <= given.largest])
    results["planned"] = 10 * given.largest
    results["plan"] = planning(results["planned"], 512)
    results["shards"] = {name: shards_a_step(10**8, w) for name, w in (("default", 1 << 16), ("all", None))}
    results["exponents"] = tables.exponents(results)
    finish(tables.as_table(results), results, given.out)
    given.out.with_suffix(".md").write_text(tables.as_markdown(results), encoding="utf8")
    if missing:
        print(f"not installed, and so not compared with: {', '.join(missing)}")


if __name__ == "__main__":
    main()

"""How data at web scale costs: making indexes, starting, reading one document, planning; beside what others do.

Run: `python -m tests.benchmarks.data_growth`, after `make data`. Times are of one core, as the processor counts them, so that
others who use the machine do not matter. Sources of 10^5 documents and more are made up: their indexes are real, and
their files are not there. Libraries to compare with that are not installed are left out (`pip install datasets webdataset
mosaicml-streaming litdata`).
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
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from data_modules.dataset import DocumentFormat, Draw
from data_modules.image_text import ImageTextDataModule
from data_modules.index.indexed_texts import IndexedTexts
from data_modules.index.ranges import RangeReader
from data_modules.index.sidecars import Sidecar
from data_modules.index.text_view import TextView
from data_modules.mixing.permutation import permute_in_windows
from data_modules.mixing.rows import RowReader
from data_modules.mixing.sampler import DrawStream, RowPlanner
from data_modules.reading.lengths import MappedLengths
from data_modules.text import TextDataModule, TextDataset
from lit_mm.tokenizer import Tokenizer
from tests.benchmarks import data_growth_inputs as inputs
from tests.benchmarks import data_growth_peers as others
from tests.benchmarks.growth import exponent
from tests.benchmarks.report import finish, options
from tests.helpers.documents import FakeDataset
from tests.helpers.program import ROOT
from tests.helpers.web_server import Server

Row = dict[str, float]
READS = 300
STEP = 7680  # pictures of a step
OURS = "lit-mm"


@cache
def tokenizer() -> Tokenizer:
    """That of the tiny data, on one thread."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return Tokenizer(ROOT / "data/tiny/tokenizer.json")


def ours(path: Path, folder: Path, kind: str) -> others.Ready:
    """Index files, and read from them."""
    module = (ImageTextDataModule if kind == "tar" else TextDataModule)(str(path))
    module.cache = folder
    dataset: Any = module.dataset("train", "x", DocumentFormat(tokenizer(), 256, 64))
    if isinstance(dataset, TextDataset):
        return len(dataset), dataset.windows.ids
    pictures = dataset.pictures
    return len(dataset), lambda i: pictures.ranges.read(*pictures._place(i))


def readiness(path: Path, kind: str, count: int) -> dict[str, Row]:
    """Seconds and bytes a document until it can be read, and microseconds of a read, ours and the others'."""
    size = path.stat().st_size if path.is_file() else inputs.bytes_of(path)
    tokenizer().encode("it is ready")
    makers: dict[str, Callable[[Path, Path], others.Ready]] = {OURS: lambda p, f: ours(p, f, kind)}
    if kind != "parquet":
        makers |= others.peers(others.PAIRS if kind == "tar" else others.TEXTS, tokenizer())
    found = {}
    for name, make in makers.items():
        with tempfile.TemporaryDirectory() as folder:
            start, children = time.process_time(), os.times()
            there, read = make(path, Path(folder))
            after = os.times()
            forked = after.children_user + after.children_system - children.children_user - children.children_system
            seconds = time.process_time() - start + forked
            assert there == count, (name, there)
            found[name] = {
                "seconds": seconds / count,
                "bytes": inputs.bytes_of(Path(folder)) / count,
                "share": inputs.bytes_of(Path(folder)) / size,
                "read": seconds_a_read(read, count),
            }
    return found


def seconds_a_read(read: Callable[[int], Any], count: int) -> float:
    """Of documents anywhere, once every file is open."""
    for number in np.linspace(0, count - 1, READS).astype(int).tolist():
        read(number)
    numbers = np.random.default_rng(0).integers(0, count, READS).tolist()
    start = time.process_time()
    for number in numbers:
        read(number)
    return (time.process_time() - start) / READS


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
    reader = RowReader({"x": dataset}, DocumentFormat(tokenizer(), 256, 64), 4096, "raise")
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
            dataset: Any = module.dataset("train", "x", DocumentFormat(tokenizer(), 256, 64))
            places = [dataset.pictures._place(i) for i in range(0, len(dataset), max(1, len(dataset) // count))]
            indexing, server.sent, server.wait, server.most = server.sent, 0, 0.02, 0
            ranges = RangeReader()
            for place in places:
                ranges.ahead(*place)
            used = sum(len(ranges.read(*place)) for place in places)
        server.shutdown()
        tar = (folder / "00000.tar").stat().st_size
        return {"sent": server.sent / used, "at_once": server.most, "indexing": indexing / tar}


def main() -> None:
    """Print tables and write them as JSON."""
    parser = options(__doc__, "data_growth", texts=100_000, pictures=10_000, largest=10**8)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    tables = [Table("ready to be read", "documents", "µs a document", "bytes", "of the input", "µs a read")]
    root = Path(tempfile.mkdtemp())
    try:
        for kind, most in (("jsonl", arguments.texts), ("parquet", arguments.texts), ("tar", arguments.pictures)):
            for count in (most // 10, most):
                path = _written(root, kind, count)
                for name, row in readiness(path, kind, count).items():
                    results[f"ready, {kind}, {name}, {count}"] = row
                    cells = (1e6 * row["seconds"], row["bytes"], 100 * row["share"], 1e6 * row["read"])
                    tables[0].add_row(f"{kind}, {name}", f"{count:,}", *(f"{cell:,.1f}" for cell in cells))
        results["over HTTP"] = over_http(root / f"tars{arguments.pictures}")
    finally:
        shutil.rmtree(root)
    sizes = [10**n for n in range(5, 9) if 10**n <= arguments.largest]
    results["start"] = found = starts(sizes)
    warm = Table("warm start", "first batch (s)", "own memory (MB)", "mapped (bytes a text)", "µs a read")
    for size, row in found.items():
        cells = (row["seconds"], row["bytes"] / 1e6, row["mapped"], 1e6 * row["read"])
        warm.add_row(f"{size:,}", *(f"{cell:.2f}" for cell in cells))
    if len(found) > 1:
        results["exponents"] = {key: exponent(found, key) for key in ("seconds", "bytes", "read")}
        warm.add_row(
            "exponent",
            *(f"{results['exponents'][key]:.2f}" for key in ("seconds", "bytes")),
            "",
            f"{results['exponents']['read']:.2f}",
        )
    results["plan"] = planning(10 * arguments.largest, 512)
    results["shards"] = {name: shards_a_step(10**8, w) for name, w in (("default", 1 << 16), ("all", None))}
    rest = Table("what", "measured")
    rest.add_row(
        f"a worker plans a step of 512 ranks x 4 rows of 4,096, {10 * arguments.largest:,} texts (s)",
        f"{results['plan']['seconds']:.2f}",
    )
    rest.add_row("… and grows by (MB)", f"{results['plan']['bytes'] / 1e6:.1f}")
    rest.add_row(
        "tars of 1,000 that a step of 7,680 of 10^8 pictures reads, default / all",
        "{default:,} / {all:,}".format(**results["shards"]),
    )
    rest.add_row(
        "bytes sent over HTTP for one that is used; requests at once",
        "{sent:.2f}; {at_once}".format(**results["over HTTP"]),
    )
    finish([*tables, warm, rest], results, arguments.out)


def _written(root: Path, kind: str, count: int) -> Path:
    if kind == "tar":
        return inputs.write_tars(root / f"tars{count}", count)
    write = inputs.write_jsonl if kind == "jsonl" else inputs.write_parquet
    return write(root / f"{count}.{kind}", count)


if __name__ == "__main__":
    main()

"""What it costs until documents can be read in any order, and to read one: ours and the others' (`data_growth`)."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.dataset import DocumentFormat, Draw
from data_modules.image_text import ImageTextSource
from data_modules.source import Source
from data_modules.text import TextSource
from data_modules.video import VideoSource
from lit_mm.tokenizer import Tokenizer
from tests.benchmarks import data_growth_inputs as inputs
from tests.benchmarks import data_growth_peers as others
from tests.helpers.program import ROOT

Row = dict[str, float]
READS = 300
SIDE, FRAME_TOKENS = 256, 64
OURS = "lit-mm"


@cache
def tokenizer() -> Tokenizer:
    """That of the tiny data, on one thread."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return Tokenizer(ROOT / "data/tiny/tokenizer.json")


def document_format() -> DocumentFormat:
    """With pictures of `SIDE` pixels."""
    return DocumentFormat(tokenizer(), SIDE, FRAME_TOKENS)


def read_tokens(dataset: Any) -> Callable[[int], Any]:
    """Reads the tokens of a text."""
    read: Callable[[int], Any] = dataset.windows.ids
    return read


def read_member(dataset: Any) -> Callable[[int], bytes]:
    """Reads the bytes of a picture in a tar."""
    pictures = dataset.pictures
    return lambda i: pictures.ranges.read(*pictures._place(i))


def read_cell(dataset: Any) -> Callable[[int], bytes]:
    """Reads the bytes of a picture in Parquet."""
    value = dataset.pictures.value
    return lambda i: value(i)[1]


def read_clip(dataset: Any) -> Callable[[int], Any]:
    """Decodes a clip."""
    return lambda i: dataset.document(Draw(i, 0, 0))


@dataclass(frozen=True)
class Kind:
    """A kind of files.

    Args:
        ending: of a file of it; none of a folder.
        write: makes so many documents of it.
        source: reads them.
        reader: of what is asked for of one document.
        peers: read them too.
    """

    ending: str
    write: Callable[[Path, int], Path]
    source: Callable[[str], Source]
    reader: Callable[[Any], Callable[[int], Any]]
    peers: dict[str, Callable[..., others.Ready]]


# A clip of all its frames is a document of a video.
KINDS = {
    "JSON Lines": Kind(".jsonl", inputs.write_jsonl, TextSource, read_tokens, others.TEXTS),
    "Parquet of texts": Kind(".parquet", inputs.write_parquet, TextSource, read_tokens, others.TEXT_TABLES),
    "tars": Kind("", inputs.write_tars, ImageTextSource, read_member, others.PAIRS),
    "Parquet of pictures": Kind(
        ".parquet", inputs.write_picture_parquet, ImageTextSource, read_cell, others.PICTURE_TABLES
    ),
    "videos": Kind("", inputs.write_videos, partial(VideoSource, fps=1.0, frames=10), read_clip, {}),
}


def ours(path: Path, folder: Path, kind: Kind) -> others.Ready:
    """Index files, and read from them."""
    source = kind.source(str(path))
    source.cache = folder
    dataset: Any = source.dataset("train", "x", document_format())
    return len(dataset), kind.reader(dataset)


def readiness(path: Path, kind: Kind, count: int) -> dict[str, Row]:
    """Seconds and bytes a document until it can be read, and seconds of a read, ours and the others'."""
    size = path.stat().st_size if path.is_file() else inputs.bytes_of(path)
    tokenizer().encode("it is ready")
    makers: dict[str, Callable[[Path, Path], others.Ready]] = {OURS: partial(ours, kind=kind)}
    makers |= others.peers(kind.peers, tokenizer())
    found = {}
    for name, make in makers.items():
        with tempfile.TemporaryDirectory() as folder:
            start, begin = _processor_seconds(), time.perf_counter()
            there, read = make(path, Path(folder))
            wall, seconds = time.perf_counter() - begin, _processor_seconds() - start
            assert there == count, (name, there)
            found[name] = {
                "seconds": seconds / count,
                "wall": wall / count,
                "bytes": inputs.bytes_of(Path(folder)) / count,
                "share": inputs.bytes_of(Path(folder)) / size,
                "read": seconds_a_read(read, count),
            }
    return found


def _processor_seconds() -> float:
    """Of this process and its children."""
    return sum(os.times()[:4])


def seconds_a_read(read: Callable[[int], Any], count: int) -> float:
    """Of documents anywhere, once every file is open."""
    for number in np.linspace(0, count - 1, READS).astype(int).tolist():
        read(number)
    numbers = np.random.default_rng(0).integers(0, count, READS).tolist()
    start = time.process_time()
    for number in numbers:
        read(number)
    return (time.process_time() - start) / READS


def index_on_cores(path: Path, kind: Kind, cores: set[int]) -> float:
    """Seconds on the clock to index files with these processors."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            ours(path, Path(folder), kind)
            return time.perf_counter() - begin
    finally:
        os.sched_setaffinity(0, allowed)

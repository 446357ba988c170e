"""Damaged files of every format that is read: a sentence or an answer, never a hang, a crash or memory without end."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import multiprocessing
import resource
import signal
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_modules.dataset import BrokenFile, DocumentFormat
from data_modules.index.input_files import local_file
from data_modules.index.pair_index import fields_of_tar, index_pairs
from data_modules.index.parquet_files import RowGroups
from data_modules.index.parquet_index import TableFields, index_parquet
from data_modules.index.ranges import RangeReader
from data_modules.index.text_files import text_parts
from data_modules.index.text_rows import rows_of
from data_modules.reading.decoding import VideoReader, index_video
from data_modules.reading.pictures import read_picture, read_up_to
from data_modules.reading.row_files import read_rows
from lit_mm.mistake import Mistake
from lit_mm.tokenizer import Tokenizer
from tests.data_modules.video_files import moving_picture, write_video
from tests.helpers.damage import damaged
from tests.helpers.tars import pairs, write_tar

CASES = 300  # of each format
PICTURES = "pictures.parquet"
LONGEST = 30  # seconds of one
MEGAPIXELS = 4.0  # pictures of more are refused
MOST_MEMORY = 512 << 20  # bytes that reading damaged files may add; the decoders' own buffers are most of it
TEXTS = [f"the cat {i} sat on the {'mat ' * (i % 7)}– 日本語 🐈" for i in range(200)]


def lines() -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=i % 2 == 0) + "\n" for i, text in enumerate(TEXTS)).encode()


@cache
def whole(name: str) -> bytes:
    """A small sound file of this ending."""
    if name in ("jsonl", "jsonl.gz", "jsonl.zst"):
        packed = {"jsonl": bytes, "jsonl.gz": gzip.compress, "jsonl.zst": pa.Codec("zstd").compress}[name](lines())
        return bytes(packed)
    if name == "json":
        return json.dumps([{"text": text} for text in TEXTS], ensure_ascii=False).encode()
    if name == "csv":
        return ("text,id\n" + "".join(f'"{text}",1\n' for text in TEXTS)).encode()
    if name == "txt":
        return TEXTS[0].encode() * 20
    if name == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.table({"text": TEXTS}), sink, row_group_size=50)
        return sink.getvalue()
    if name == PICTURES:
        sink, table = io.BytesIO(), pa.table({"image": [whole("png")] * 40, "text": TEXTS[:40]})
        pq.write_table(table, sink, row_group_size=10, compression="none", use_dictionary=False)
        return sink.getvalue()
    sink = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(np.repeat(noise[::8], 8, 0)).save(sink, name)
    return sink.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Sound files; those that need a folder to be made are made once."""
    folder = tmp_path_factory.mktemp("whole")

    @cache
    def make(name: str) -> bytes:
        if name == "tar":
            return write_tar(folder / "a.tar", pairs(20)).read_bytes()
        if name in ("mp4", "mkv", "avi", "ts", "webm"):
            codec = {"webm": "libvpx", "avi": "mpeg4"}.get(name, "libx264")
            return write_video(folder / f"a.{name}", moving_picture(24), codec, g="8").read_bytes()
        return whole(name)

    return make


def read_text(file: Path) -> None:
    for part in text_parts(local_file(file)):
        try:
            list(rows_of(part, "text"))
        except OSError as error:  # whoever makes an index says that
            raise BrokenFile(file, error) from error


def read_table(file: Path) -> None:
    list(read_rows(file, ["text"]))


def read_video(file: Path) -> None:
    index = index_video(file)
    VideoReader().read(str(file), index, [0, len(index) // 2, len(index) - 1])


def read_image(file: Path) -> None:
    read_picture(file, 32)


READERS: dict[str, tuple[Callable[[Path], None], ...]] = {
    **dict.fromkeys(("jsonl", "jsonl.gz", "jsonl.zst"), (read_table, read_text)),
    **dict.fromkeys(("json", "csv", "txt"), (read_table,)),
    "parquet": (read_text,),
    **dict.fromkeys(("png", "jpeg", "webp", "gif", "tiff", "bmp"), (read_image,)),
    **dict.fromkeys(("mp4", "mkv", "avi", "ts", "webm"), (read_video,)),
    **dict.fromkeys(("tar", PICTURES), ()),
}


def memory() -> int:
    """Most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def too_long(*_: object) -> None:
    raise TimeoutError(f"more than {LONGEST} s")


def read_all(
    name: str, content: bytes, count: int, folder: Path, readers: Sequence[Callable[[Path], None]], talk: object
) -> None:
    """Say which case is begun, and in the end what went wrong: in a process of its own, which may crash."""
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    datasets.disable_progress_bars()
    read_up_to(MEGAPIXELS)
    signal.signal(signal.SIGALRM, too_long)
    file, wrong = folder / f"damaged.{name}", []
    before = memory()
    for seed in range(count):
        file.write_bytes(damaged(content, seed))
        talk.send(seed)  # type: ignore[attr-defined]
        for reader in readers:
            signal.alarm(LONGEST)
            try:
                reader(file)
            except Mistake as error:
                if "\n" in str(error) or str(file) not in str(error):
                    wrong.append(f"{seed}: {error!r} is no sentence with the file")
            except BaseException:
                wrong.append(f"{seed}: {traceback.format_exc(limit=-4)}")
            signal.alarm(0)
    if memory() - before > MOST_MEMORY:
        wrong.append(f"{(memory() - before) >> 20} MiB of memory")
    talk.send(wrong)  # type: ignore[attr-defined]


def faults(name: str, content: bytes, count: int, folder: Path, readers: Sequence[Callable[[Path], None]]) -> list[str]:
    """What goes wrong with damaged files of one format."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=read_all, args=(name, content, count, folder, readers, theirs))
    process.start()
    theirs.close()
    said: object = None
    try:
        while not isinstance(said, list):
            said = ours.recv()
    except EOFError:
        process.join()
        said = [f"case {said}: the process ended with {process.exitcode}"]
    process.join()
    assert isinstance(said, list)
    return said


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_named(
    name: str, made: Callable[[str], bytes], tmp_path: Path, document_format: DocumentFormat
) -> None:
    of_pairs = {"tar": read_tar, "parquet": read_pairs, PICTURES: read_stored}
    readers = [*READERS[name]]
    if name in of_pairs:
        readers.append(lambda file: of_pairs[name](file, document_format.tokenizer))
    assert faults(name, made(name), CASES, tmp_path, readers) == []


def read_tar(file: Path, tokenizer: Tokenizer) -> None:
    arrays, _ = index_pairs(local_file(file), fields_of_tar(None, ["txt"], 64), tokenizer)
    content = file.read_bytes()
    for offset, size, flags in zip(arrays["offset"], arrays["size"], arrays["flags"], strict=True):
        if not flags & 1:
            read_picture(content[int(offset) : int(offset + size)], 32, file)


def read_pairs(file: Path, tokenizer: Tokenizer) -> None:
    arrays, said = index_parquet(local_file(file), TableFields("text", ("text",), 64), tokenizer)
    groups = RowGroups(RangeReader())
    if said["reports"]:
        raise BrokenFile(file, said["reports"][0])
    for group, row in zip(arrays["group"].tolist(), arrays["row"].tolist(), strict=True):
        with contextlib.suppress(UnicodeDecodeError):  # whoever reads a file of that name says what is wrong
            groups.column(local_file(file), group, "text")[row].as_py()


def read_stored(file: Path, tokenizer: Tokenizer) -> None:
    arrays, said = index_parquet(local_file(file), TableFields("image", ("text",), 64), tokenizer)
    content = file.read_bytes()
    for offset, size in zip(arrays["offset"].tolist(), arrays["size"].tolist(), strict=True):
        assert offset + size <= len(content)
        if size:
            read_picture(content[offset : offset + size], 32, file)
    if said["reports"]:
        raise BrokenFile(file, said["reports"][0])


def test_damages_differ_and_are_the_same_in_every_run() -> None:
    content = lines()
    found = [damaged(content, seed) for seed in range(50)]
    assert found == [damaged(content, seed) for seed in range(50)]
    assert len(set(found)) > 40

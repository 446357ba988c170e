"""What `data_growth` reads: texts and pictures as files, and indexes of sources that no disk here would hold."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data_modules.index.array_file import write_arrays
from data_modules.index.sidecars import Sidecar
from data_modules.index.storage import InputFile
from data_modules.index.text_view import make_text_view
from tests.data_modules.video_files import moving_picture, write_video

A_FILE = 1_000_000  # texts of one index of a made-up source
A_SHARD = 1000  # pictures of a tar
TOKENS = 60  # of each made-up text


def texts(count: int) -> list[str]:
    """Texts of some 60 tokens that differ."""
    words = ["the", "a", "red", "blue", "small", "large", "cat", "dog", "house", "sits", "stands", "runs", "on", "under",
             "is"]  # fmt: skip
    picks = np.random.default_rng(0).integers(0, len(words), (count, 40))
    return [" ".join(words[i] for i in row) for row in picks.tolist()]


def write_jsonl(file: Path, count: int) -> Path:
    """JSON Lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as out:
        out.writelines(json.dumps({"text": text}) + "\n" for text in texts(count))
    return file


def write_parquet(file: Path, count: int) -> Path:
    """Parquet with the same texts."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts(count)}), file, row_group_size=10_000)
    return file


def picture(side: int = 256) -> bytes:
    """A noisy JPEG, of some 30 kB where it is 256 pixels wide."""
    pixels = np.random.default_rng(0).integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_folder(folder: Path, count: int) -> Path:
    """An image folder."""
    folder.mkdir(parents=True, exist_ok=True)
    content, captions = picture(), texts(count)
    for number in range(count):
        (folder / f"{number:09}.jpg").write_bytes(content)
    lines = (json.dumps({"file_name": f"{n:09}.jpg", "caption": caption}) for n, caption in enumerate(captions))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def write_picture_parquet(file: Path, count: int) -> Path:
    """Parquet with the same pairs as the tars, in groups as Hugging Face `datasets` writes pictures."""
    file.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema({"image": pa.binary(), "caption": pa.string()})
    content, captions = picture(), texts(count)
    # The picture is the same in all rows, which nothing may make use of.
    with pq.ParquetWriter(file, schema, compression="none", use_dictionary=False) as out:
        for start in range(0, count, 100):
            some = captions[start : start + 100]
            out.write_table(pa.table({"image": [content] * len(some), "caption": some}, schema))
    return file


def write_videos(folder: Path, count: int) -> Path:
    """Videos of 10 seconds at 10 frames a second, 256 pixels wide, that are all the same."""
    folder.mkdir(parents=True, exist_ok=True)
    content = write_video(folder / "0.mp4", moving_picture(100, 256, 256), g="10").read_bytes()
    for number in range(1, count):
        (folder / f"{number}.mp4").write_bytes(content)
    return folder


def write_tars(folder: Path, count: int) -> Path:
    """Tars of captioned pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    content, captions = picture(), texts(count)
    for shard in range(-(-count // A_SHARD)):
        with tarfile.open(folder / f"{shard:05}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for number in range(shard * A_SHARD, min(count, (shard + 1) * A_SHARD)):
                for ending, member in (("jpg", content), ("txt", captions[number].encode())):
                    header = tarfile.TarInfo(f"{number:09}.{ending}")
                    header.size = len(member)
                    tar.addfile(header, io.BytesIO(member))
    return folder


def made_up_source(folder: Path, count: int) -> list[Sidecar]:
    """Indexes of so many texts, all of them `TOKENS` zeros long, and their view."""
    each = min(A_FILE, count)
    first = Sidecar.of(InputFile("0", each, ""), "made up", folder)
    lengths = np.full(each, TOKENS, np.uint32)
    said = {"texts": each, "tokens": each * (TOKENS - 2), "bytes": 4 * each * TOKENS, "rows": each}
    said |= {"lost": 0, "unread": 0, "reports": [], "path": "0"}
    ids = np.zeros(each * TOKENS, np.uint16)
    write_arrays(first.path, {"ids": ids, "lengths": lengths}, said)
    sidecars = [Sidecar.of(InputFile(str(n), each, ""), "made up", folder) for n in range(count // each)]
    for other in sidecars[1:]:
        other.path.parent.mkdir(parents=True, exist_ok=True)
        if not other.path.exists():
            os.link(first.path, other.path)  # the tokens are the same
    make_text_view(sidecars, 512, folder)
    return sidecars


def bytes_of(folder: Path) -> int:
    """Of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

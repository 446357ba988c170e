"""How others make data ready to be read in any order, and read them: what `data_growth` measures beside ours.

Each takes captioned pictures in tars, or texts in JSON Lines, and a folder of its own. It returns how many documents
there are, and a function that reads one by its number. A library that is not installed is left out.
"""

from __future__ import annotations

import importlib.util
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from lit_mm.tokenizer import Tokenizer

Ready = tuple[int, Callable[[int], Any]]


def lines(file: Path) -> Iterator[str]:
    """Texts of JSON Lines."""
    with file.open() as stream:
        for line in stream:
            yield json.loads(line)["text"]


def pairs(folder: Path) -> Iterator[tuple[bytes, str]]:
    """Pictures and captions of tars, read through."""
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            sample: dict[str, bytes] = {}
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                sample[member.name.rpartition(".")[2]] = content.read()
                if len(sample) == 2:
                    yield sample["jpg"], sample["txt"].decode()
                    sample = {}


def datasets_texts(file: Path, folder: Path, tokenizer: Tokenizer, builder: str = "json") -> Ready:
    """`datasets`, map-style: Arrow, then tokens by `map`."""
    import datasets

    rows = datasets.load_dataset(builder, data_files=str(file), split="train", cache_dir=str(folder))
    encode = lambda batch: {"ids": tokenizer.encode_batch(batch["text"])}  # noqa: E731
    made = rows.map(
        encode, batched=True, remove_columns=rows.column_names, cache_file_name=str(folder / "tokens.arrow")
    )
    return len(made), lambda i: made[i]["ids"]


def datasets_pairs(tars: Path, folder: Path, tokenizer: Tokenizer) -> Ready:
    """`datasets`, map-style: Arrow with the pictures."""
    import datasets

    files = sorted(str(file) for file in tars.glob("*.tar"))
    rows = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(folder))
    rows = rows.cast_column("jpg", datasets.Image(decode=False))
    return len(rows), lambda i: rows[i]["jpg"]["bytes"]


def datasets_pictures(file: Path, folder: Path, tokenizer: Tokenizer) -> Ready:
    """`datasets`, map-style: Arrow with the pictures of a Parquet file."""
    import datasets

    rows = datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(folder))
    return len(rows), lambda i: rows[i]["image"]


def streaming_texts(file: Path, folder: Path, tokenizer: Tokenizer) -> Ready:
    """`mosaicml-streaming`: texts copied to MDS, tokens in them."""
    import numpy as np
    from streaming import MDSWriter

    with MDSWriter(out=str(folder / "mds"), columns={"ids": "ndarray:int32"}) as out:
        batch: list[str] = []
        for text in lines(file):
            batch.append(text)
            if len(batch) == 1000:
                for ids in tokenizer.encode_batch(batch):
                    out.write({"ids": np.array(ids, np.int32)})
                batch = []
        for ids in tokenizer.encode_batch(batch):
            out.write({"ids": np.array(ids, np.int32)})
    return _streaming(folder / "mds", "ids")


def streaming_pairs(tars: Path, folder: Path, tokenizer: Tokenizer) -> Ready:
    """`mosaicml-streaming`: pictures copied to MDS."""
    from streaming import MDSWriter

    with MDSWriter(out=str(folder / "mds"), columns={"jpg": "bytes", "txt": "str"}) as out:
        for content, caption in pairs(tars):
            out.write({"jpg": content, "txt": caption})
    return _streaming(folder / "mds", "jpg")


def _streaming(folder: Path, column: str) -> Ready:
    from streaming import StreamingDataset

    made = StreamingDataset(local=str(folder), batch_size=1, shuffle=False)
    return made.num_samples, lambda i: made[i][column]


def litdata_pairs(tars: Path, folder: Path, tokenizer: Tokenizer) -> Ready:
    """`litdata`: pictures copied to its chunks."""
    from litdata import StreamingDataset
    from litdata.streaming.cache import Cache

    chunks = Cache(str(folder / "lit"), chunk_bytes="64MB")
    for number, (content, caption) in enumerate(pairs(tars)):
        chunks[number] = {"jpg": content, "txt": caption}
    chunks.done()
    chunks.merge()
    made = StreamingDataset(str(folder / "lit"))
    return len(made), lambda i: made[i]["jpg"]


def wids_pairs(tars: Path, folder: Path, tokenizer: Tokenizer) -> Ready:
    """`wids`: tars where they are; a list of them with the number of their samples."""
    import wids

    shards = []
    for file in sorted(tars.glob("*.tar")):
        with tarfile.open(file) as tar:
            shards.append({"url": str(file), "nsamples": sum(1 for _ in tar) // 2})
    with redirect_stdout(io.StringIO()):  # it prints its settings
        made = wids.ShardListDataset(shards, cache_dir=str(folder), keep=True, transformations=[])
    return len(made), lambda i: made[i][".jpg"].read()


def installed(library: str) -> bool:
    """Whether a library can be imported."""
    return importlib.util.find_spec(library) is not None


LIBRARIES = ("datasets", "webdataset", "wids", "streaming", "litdata")
TEXTS = {"datasets": datasets_texts, "streaming": streaming_texts}
TEXT_TABLES = {"datasets": partial(datasets_texts, builder="parquet")}
PICTURE_TABLES = {"datasets": datasets_pictures}
PAIRS = {"datasets": datasets_pairs, "streaming": streaming_pairs, "litdata": litdata_pairs, "wids": wids_pairs}


def peers(of: dict[str, Callable[..., Ready]], tokenizer: Tokenizer) -> dict[str, Callable[[Path, Path], Ready]]:
    """Those that are installed."""
    return {name: partial(make, tokenizer=tokenizer) for name, make in of.items() if installed(name)}

"""How many documents a second come out of loaders with workers: ours and the others' (`data_growth`).

All decode the same pictures to the same size. Ours packs them into rows with their captions, in an order that can be gone
on with; the others give pictures, in whatever order they shuffle by default.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from data_modules.base import DocumentDataModule
from data_modules.image_text import ImageTextDataModule
from data_modules.mixing.loaders import LoaderConfig
from data_modules.reading.pictures import read_picture
from data_modules.text import TextDataModule
from data_modules.video import VideoDataModule
from tests.benchmarks import data_growth_inputs as inputs
from tests.benchmarks import data_growth_peers as others
from tests.benchmarks.data_growth_ready import FRAME_TOKENS, SIDE
from tests.helpers.program import ROOT
from tests.helpers.token_files import write_megatron

WORKERS = (1, 2)
WARM_UP = 4  # batches that are not counted
BATCH = 32
Loader = Callable[[Path, Path, int], Iterable[Any]]


def ours(module: Callable[..., DocumentDataModule], **options: Any) -> Loader:
    """Rows of 4,096 positions."""

    def loader(path: Path, folder: Path, workers: int) -> Iterable[Any]:
        settings = LoaderConfig(row_length=4096, rows=1, workers=workers, cache=str(folder))
        size = {"image_size": SIDE, "tokens_per_frame": FRAME_TOKENS}
        data = module(str(path), tokenizer=str(ROOT / "data/tiny/tokenizer.json"), loader=settings, **size, **options)
        data.setup("fit")
        return data.train_dataloader()

    return loader


def picture(content: bytes) -> Tensor:
    """As our reader decodes it."""
    return read_picture(content, SIDE)


def webdataset_pictures(tars: Path, folder: Path, workers: int) -> Iterable[Any]:
    """`webdataset`: tars one after the other, shuffled in a buffer."""
    import webdataset

    files = sorted(map(str, tars.glob("*.tar")))
    made = webdataset.WebDataset(files, shardshuffle=len(files), empty_check=False).repeat().shuffle(1000)
    return DataLoader(made.map(lambda sample: picture(sample["jpg"])), BATCH, num_workers=workers)


def streamed_pictures(tars: Path, folder: Path, workers: int) -> Iterable[Any]:
    """`datasets`, streaming: tars one after the other, shuffled in a buffer."""
    import datasets

    files = sorted(str(file) for file in tars.glob("*.tar"))
    made = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
    made = made.cast_column("jpg", datasets.Image(decode=False)).shuffle(buffer_size=1000).repeat(None)
    made = made.map(lambda row: {"picture": picture(row["jpg"]["bytes"])}, remove_columns=["jpg", "txt"])
    return DataLoader(made.select_columns("picture").with_format("torch"), BATCH, num_workers=workers)


def any_order(make: Callable[..., others.Ready]) -> Loader:
    """A library that reads any document, by a loader of PyTorch that asks in a random order."""

    class Pictures:
        def __init__(self, path: Path, folder: Path) -> None:
            self.count, self.read = make(path, folder, None)

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, number: int) -> Tensor:
            return picture(self.read(number))

    def loader(path: Path, folder: Path, workers: int) -> Iterable[Any]:
        return DataLoader(Pictures(path, folder), BATCH, shuffle=True, num_workers=workers)  # type: ignore[arg-type]

    return loader


PICTURES: dict[str, Loader] = {
    "lit-mm, tars": ours(ImageTextDataModule),
    "datasets": any_order(others.datasets_pairs),
    "datasets, streaming": streamed_pictures,
    "webdataset": webdataset_pictures,
    "wids": any_order(others.wids_pairs),
    "streaming": any_order(others.streaming_pairs),
    "litdata": any_order(others.litdata_pairs),
}


def per_second(make: Loader, path: Path, workers: int, seconds: float) -> float:
    """Documents that come out when nothing else is done, however often all of them have to be gone through."""
    with tempfile.TemporaryDirectory() as folder:
        loader = make(path, Path(folder), workers)
        batches = (batch for _ in iter(int, 1) for batch in loader)
        for _ in range(WARM_UP):
            next(batches)
        documents, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            documents += _documents(next(batches))
        found = documents / (time.perf_counter() - begin)
        batches.close()
    return found


def _documents(batch: Any) -> int:
    if hasattr(batch, "document_ids"):
        return int((batch.document_ids.max(1).values + 1).sum())
    return len(batch["picture"] if isinstance(batch, dict) else batch)


def rates(root: Path, pictures: int, texts: int, videos: int, seconds: float) -> dict[str, dict[int, float]]:
    """Documents a second by what is read and how, and by workers."""
    tars = inputs.write_tars(root / "tars", pictures)
    sources: dict[str, tuple[Loader, Path]] = {
        name: (make, tars) for name, make in PICTURES.items() if others.installed(name.partition(",")[0])
    }
    sources["lit-mm, tars"] = PICTURES["lit-mm, tars"], tars
    kept = ours(ImageTextDataModule)
    sources["lit-mm, folder"] = kept, inputs.write_folder(root / "folder", pictures)
    sources["lit-mm, Parquet of pictures"] = kept, inputs.write_picture_parquet(root / "pictures.parquet", pictures)
    shards = [np.random.default_rng(0).integers(16, 4000, 60).tolist() for _ in range(texts)]
    sources["lit-mm, token shards"] = ours(TextDataModule), write_megatron(root / "tokens/all", shards).parent
    clips = ours(VideoDataModule, fps=1.0, frames=10)
    sources["lit-mm, videos"] = clips, inputs.write_videos(root / "videos", videos)
    with contextlib.redirect_stdout(io.StringIO()):
        return {
            name: {workers: per_second(make, path, workers, seconds) for workers in WORKERS}
            for name, (make, path) in sources.items()
        }

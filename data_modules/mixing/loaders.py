"""Loaders of batches: their settings, how long they were waited for, and whole optimizer steps at once."""

from __future__ import annotations

import gc
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from data_modules.index.keys import cache_folder
from data_modules.index.range_cache import RangeCache
from data_modules.mixing.permutation import BLOCK
from data_modules.mixing.steps import with_step_counts
from data_modules.reading.files import OnError, Tolerance
from data_modules.reading.pictures import read_up_to
from lit_mm.mistake import Mistake


@dataclass
class LoaderConfig:
    """How documents become batches.

    Args:
        row_length: positions in a row.
        rows: rows in a batch, per device.
        workers: processes that read and decode, per device.
        seed: of the order of documents, of what is random about each, and of all noise of the flow.
        on_error: a file that breaks while being read ends the run (`raise`), or its document is left out and counted
            (`skip`).
        max_lost: with `skip`, the share of a source's documents that may be left out, in [0, 1]. What cannot be read
            when the source is set up is known exactly; what breaks while training is counted over all ranks, and the
            run ends once chance does not explain it.
        shuffle_window: documents of a source that are shuffled among each other, a multiple of 1,024: 64 blocks of
            neighbours, from all over the source. `all` spreads every step over the whole source: of 10^8 pictures in
            shards of 1,000, a step that reads 7,680 touches 7,400 shards in place of some 130.
        cache: folder of what is read, tokenized and indexed once. By default tables lie in that of Hugging Face
            `datasets` (`~/.cache/huggingface/datasets`, or HF_DATASETS_CACHE), and indexes in `~/.cache/lit-mm` (or
            `lit-mm` in the folder that XDG_CACHE_HOME names).
        remote_cache_gb: GB of remote pictures that are kept in `cache` once they are read, those read last; `cache`
            should be on a local disk then. 0 keeps none.
        max_megapixels: pictures of more are not read; a worker needs about 4 MB for each, 8 MB where it is transparent.
        val_documents: validate on so many documents of each source, evenly spread; all of them by default.

    Raises:
        Mistake: a number is out of its range.
    """

    row_length: int = 512
    rows: int = 8
    workers: int = 2
    seed: int = 0
    on_error: OnError = "raise"
    max_lost: float = 0.01
    shuffle_window: int | Literal["all"] = 64 * BLOCK
    cache: str | None = None
    remote_cache_gb: float = 0
    max_megapixels: float = 179
    val_documents: int | None = None

    def __post_init__(self) -> None:
        least = {"row_length": 1, "rows": 1, "workers": 0, "val_documents": 1}
        for name, low in least.items():
            if (value := getattr(self, name)) is not None and value < low:
                raise Mistake(f"data.loader.{name} is {value}; use {low} or more")
        if self.remote_cache_gb < 0:
            raise Mistake(f"data.loader.remote_cache_gb is {self.remote_cache_gb}; use 0 or more")
        if self.max_megapixels <= 0:
            raise Mistake(f"data.loader.max_megapixels is {self.max_megapixels}; use more than 0")
        if not 0 <= self.max_lost <= 1:
            raise Mistake(f"data.loader.max_lost is {self.max_lost}; it is a share, from 0 to 1")
        if "://" in (self.cache or ""):
            raise Mistake(f"data.loader.cache is '{self.cache}'; a cache lies on a local disk, so name a folder")
        window = self.shuffle_window
        if window != "all" and (window < BLOCK or window % BLOCK):
            raise Mistake(f"data.loader.shuffle_window is {window}; use a multiple of {BLOCK}, or all")

    @property
    def window(self) -> int | None:
        """Documents that are shuffled among each other; None for all."""
        return None if self.shuffle_window == "all" else self.shuffle_window

    @property
    def tolerance(self) -> Tolerance:
        """What may be left out."""
        return Tolerance(self.on_error, self.max_lost)

    @property
    def folder(self) -> Path:
        """Folder of indexes."""
        return cache_folder(self.cache)

    @property
    def range_cache(self) -> RangeCache | None:
        """Keeps remote pictures once they are read."""
        limit = int(self.remote_cache_gb * 1e9)
        return RangeCache(self.folder / "ranges", limit) if limit else None

    def apply(self) -> None:
        """Have what is read from here on kept in `cache`, and no larger pictures read, in this process."""
        read_up_to(self.max_megapixels)
        if self.cache is not None:
            import datasets

            datasets.config.HF_DATASETS_CACHE = Path(self.cache).expanduser().absolute()


class TimedLoader(DataLoader):
    """A DataLoader that adds up how long it was waited for.

    Attributes:
        waited: seconds.
    """

    waited = 0.0

    def __iter__(self) -> Any:
        batches = super().__iter__()
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.perf_counter() - start
            yield batch


class StepLoader(TimedLoader):
    """A loader of training batches that reads all micro-batches of an optimizer step before it gives the first.

    Attributes:
        trainer: whose steps they are; without one each batch is a step.
    """

    trainer: Trainer | None = None

    def __iter__(self) -> Any:
        trainer = self.trainer
        if trainer is None:
            return super().__iter__()
        done = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        return with_step_counts(super().__iter__(), lambda: trainer.accumulate_grad_batches, done)


def start_worker(loader: LoaderConfig, number: int) -> None:
    """What a worker is born with it shares with its parent. Passing over it, the garbage collector would copy it.

    Ctrl-C in a terminal reaches workers too; they read on until the run has saved its step.

    Args:
        loader: settings of the run.
        number: of the worker.
    """
    loader.apply()
    gc.freeze()
    for one in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(one, signal.SIG_IGN)

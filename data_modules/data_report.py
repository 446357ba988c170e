"""What a run reads, source by source: files, documents, tokens, pictures or hours, what is left out, and the caches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_modules.base import DocumentDataModule
from data_modules.dataset import DocumentDataset
from data_modules.reading.findings import Findings

AT_ONCE = 1 << 20  # documents whose lengths are added up at once
COLUMNS = ("source", "split", "files", "documents", "tokens", "pictures", "hours", "left out", "cache")


@dataclass(frozen=True)
class SourceReport:
    """One split of one source.

    Args:
        source: its name.
        split: `train` or `val`.
        files: that are read.
        documents: that there are.
        tokens: positions of all of them, visual tokens included, each document in the variants that draws show.
        pictures: that they show; of videos, frames that there are.
        hours: of video.
        left_out: how many of what are left out, by the reason; an ending stands for files that end so.
        cached: when the caches that are used were made (seconds since 1970), those made for this run not among them.
        made: caches that were made for this run.
    """

    source: str
    split: str
    files: int
    documents: int
    tokens: int
    pictures: int
    hours: float
    left_out: dict[str, int]
    cached: list[float]
    made: int

    def cells(self) -> list[str]:
        """As a row of a table with `COLUMNS`; what there is none of is a blank."""
        left_out = ", ".join(f"{count:,} {what}" for what, count in sorted(self.left_out.items()))
        counts = [f"{n:,}" if n else "" for n in (self.files, self.documents, self.tokens, self.pictures)]
        hours = f"{self.hours:.3g}" if self.hours else ""
        return [self.source, self.split, *counts, hours, left_out, self._cache()]

    def _cache(self) -> str:
        if not self.cached:
            return "made now" if self.made else ""
        oldest = time.strftime("%Y-%m-%d %H:%M", time.localtime(min(self.cached)))
        return f"of {oldest}" + (", some made now" if self.made else "")


def data_report(data: DocumentDataModule) -> list[SourceReport]:
    """Every split of every source that is open, in the order of the configuration."""
    opened = [(split, name, dataset) for split, found in data.datasets.items() for name, dataset in found.items()]
    names = list(data.mixture.sources)
    opened.sort(key=lambda one: (names.index(one[1]), one[0] != "train"))
    return [_of_source(name, split, dataset, data.findings[split, name]) for split, name, dataset in opened]


def _of_source(source: str, split: str, dataset: DocumentDataset, found: Findings) -> SourceReport:
    frames, hours = _of_videos(dataset)
    return SourceReport(
        source=source,
        split=split,
        files=found.files or len(dataset.files),
        documents=len(dataset),
        tokens=positions(dataset),
        pictures=frames or dataset.picture_count,
        hours=hours,
        left_out=dict(found.left_out),
        cached=[made for made in found.caches if made < found.began],
        made=sum(made >= found.began for made in found.caches),
    )


def positions(dataset: DocumentDataset) -> int:
    """Positions of one pass over all documents, each in the mean over its variants by their shares."""
    total = 0.0
    for variant, share in enumerate(dataset.shares):
        for start in range(0, len(dataset), AT_ONCE):
            lengths = dataset.lengths[variant, slice(start, start + AT_ONCE)]
            total += share * float(np.sum(lengths, dtype=np.int64))
    return round(total)


def _of_videos(dataset: DocumentDataset) -> tuple[int, float]:
    """Frames, and hours from the first to the last of each video; 0 of other documents."""
    from data_modules.reading.episodes import VideoPictures

    pictures = dataset.pictures
    if not isinstance(pictures, VideoPictures):
        return 0, 0.0
    indexes = [pictures.table.index(row) for row in pictures.table.usable().tolist()]
    return sum(map(len, indexes)), sum(float(index.seconds[-1]) for index in indexes) / 3600


def as_markdown(reports: Sequence[SourceReport]) -> str:
    """A table, as TensorBoard shows one."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(report.cells() for report in reports)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)

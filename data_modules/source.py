"""A source: documents of one kind, from files of a training and a validation split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from data_modules.dataset import DocumentDataset, DocumentFormat
from data_modules.index.listing import Listing
from data_modules.index.sidecars import Indexing
from data_modules.mixing.loader_config import LoaderConfig
from data_modules.prompting.template import Template
from lit_mm.tokenizer import Tokenizer

Split = Literal["train", "val"]


class Source(ABC):
    """Documents of one kind. It knows its files and how they become documents, and nothing of rows, ranks and devices.

    What all sources of a run share it is told by `join`; until then it has the defaults.

    Attributes:
        key: of the source in the configuration, for messages.
        tolerance: what may be left out.
        cache: folder of indexes.
        range_cache: keeps what is read of remote files; None keeps nothing.
        template: how turns of conversations are written down.
        listing: of files, which are looked for once.
    """

    key = "data"

    def __init__(self) -> None:
        self.join(LoaderConfig(), Template(), Listing())

    def join(self, loader: LoaderConfig, template: Template, listing: Listing) -> None:
        """Be a source of a run.

        Args:
            loader: of the run, which says what may be left out and where caches lie.
            template: how turns of conversations are written down.
            listing: of files.
        """
        self.tolerance, self.cache, self.range_cache = loader.tolerance, loader.folder, loader.range_cache
        self.template, self.listing = template, listing

    @abstractmethod
    def dataset(self, split: Split, source: str, format: DocumentFormat) -> DocumentDataset | None:
        """Documents of one split; None where there is no such split.

        Args:
            split: which one.
            source: the name that documents carry and metrics are logged under.
            format: tokenizer, picture size and tokens of a frame of this run.

        Raises:
            BrokenFile, Mistake: the files cannot be used.
        """

    def indexing(self, split: Split, tokenizer: Tokenizer) -> Indexing | None:
        """Indexes that a split needs, and what makes them; None of files that are read without an index.

        Args:
            split: which one.
            tokenizer: of its texts.
        """
        return None

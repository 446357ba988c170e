"""Pages of texts and pictures in turns: a picture is drawn from what stands before it, and read by what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from data_modules.base import DocumentDataModule
from data_modules.composed import ComposedDataset, folder_of
from data_modules.dataset import DocumentFormat, Draw
from data_modules.mixing.mixture import Mixture
from data_modules.reading.cropping import CENTRE, Cropping
from data_modules.reading.layout import BOTH, READ
from data_modules.source import Source, Split
from lit_mm.mistake import Mistake

if TYPE_CHECKING:
    import datasets

    from data_modules.reading.page_pictures import PagePictures
    from data_modules.reading.pages import Pages


class InterleavedSource(Source):
    """Pages of the web, `<bos> text <boi> picture <eoi> text … <eos>`.

    A picture stands twice in a document: drawn, where it sees all before it, and clean, which is what follows reads; as
    when the model draws a picture and writes on. It takes its tokens twice, but where nothing follows it.

    Files: rows as of OBELICS, OmniCorpus and MINT-1T (`texts` and `images`, lists of one length), of MMC4 (`text_list`
    and `image_info`), or `content`, a list of parts of the types `text` and `image`; JSON, JSON Lines, compressed with
    gzip or zstd, Parquet or on the Hub. Pictures are paths, or inside Parquet.

    Args:
        train: file, folder, pattern, or Hub name such as `hf://owner/name`.
        val: the same for validation; none by default.
        pictures: folder that the paths of pictures are relative to; by default that of the file that names them.
        drawn: share of draws whose pictures are drawn; those of the rest are only read (ours).
        condition_dropout: share of the draws with drawn pictures that lose their texts, which guidance needs (paper).
        max_pictures: pages are cut before the picture that is one too many for a document.
        window: longer pages are cut into documents of at most so many positions; the row length is a good choice.
        crop: how pictures become squares, by a rule other than `random` (see `data_modules.reading.cropping.Cropping`);
            their centres by default.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        pictures: str | None = None,
        drawn: float = 1.0,
        condition_dropout: float = 0.1,
        max_pictures: int = 8,
        window: int = 512,
        crop: Cropping = CENTRE,
    ) -> None:
        super().__init__()
        for name, share in {"drawn": drawn, "condition_dropout": condition_dropout}.items():
            if not 0 <= share <= 1:
                raise Mistake(f"{name}: {share} is not a share; give a number from 0 to 1")
        if max_pictures < 1:
            raise Mistake(f"max_pictures: {max_pictures} is no number of pictures; give 1 or more")
        self.paths: dict[Split, str | None] = {"train": train, "val": val}
        self.folder, self.max_pictures, self.window = folder_of(pictures), max_pictures, window
        self.crop = crop.fixed()
        self.shares = {
            "drawn": drawn * (1 - condition_dropout),
            "unconditional": drawn * condition_dropout,
            "read": 1 - drawn,
        }

    def dataset(self, split: Split, source: str, format: DocumentFormat) -> InterleavedDataset | None:
        """Pages of one split; texts are tokenized once, pictures are read when drawn."""
        from data_modules.reading.document_rows import documents_of
        from data_modules.reading.page_layout import lay_out_pages
        from data_modules.reading.page_pictures import PagePictures
        from data_modules.reading.pages import load_pages
        from data_modules.reading.picture_identity import root_of
        from data_modules.reading.pictures import Square
        from data_modules.reading.web_pages import WEB_PAGES

        path = self.paths[split]
        if path is None:
            return None
        key = f"{self.key}.{split}"
        shares = {variant: share for variant, share in self.shares.items() if share}
        mark = READ if list(shares) == ["read"] else BOTH
        least = 2 + format.tokens_per_frame * (2 if mark == BOTH else 1)
        if self.window < least:
            raise Mistake(f"{self.key}.window: {self.window} positions cannot hold a picture, which takes {least}")
        pages = load_pages(path, split, key, self.tolerance, WEB_PAGES, self.listing)
        settings = {
            "tokenizer": format.tokenizer,
            "mark": mark,
            "window": self.window,
            "most_pictures": self.max_pictures,
            "tokens_per_frame": format.tokens_per_frame,
        }
        documents, _ = documents_of(pages, lay_out_pages, settings, key)
        if not len(documents):
            raise Mistake(f"{key}: '{path}' holds no page")
        pictures = PagePictures(documents, pages, self.folder, Square(format.image_size, self.crop.still))
        pictures.root = root_of(path)
        return InterleavedDataset(source, documents, pages, pictures, format, shares)


class InterleavedDataModule(DocumentDataModule):
    """Pages of texts and pictures alone, see `InterleavedSource`."""

    def mix(self, **mixed: Any) -> Mixture:
        """The source, of these arguments."""
        return Mixture.of_one(InterleavedSource(**mixed))


class InterleavedDataset(ComposedDataset):
    """Pages in up to three variants.

    Args:
        source: name of the source.
        documents: see `ComposedDataset`.
        pages: see `ComposedDataset`.
        pictures: see `ComposedDataset`.
        format: see `ComposedDataset`.
        shares: of the variants, by name: `drawn`, `unconditional` (without texts) and `read` (nothing is drawn).

    Attributes:
        variants: their names, in the order of `lengths`.
    """

    def __init__(
        self,
        source: str,
        documents: datasets.Dataset,
        pages: Pages,
        pictures: PagePictures,
        format: DocumentFormat,
        shares: dict[str, float],
    ) -> None:
        from data_modules.reading.columns import Column

        super().__init__(source, documents, pages, pictures, format)
        self.variants, self.shares = tuple(shares), tuple(shares.values())
        whole, shown = self.lengths[0], self.page_pictures.names.lengths()
        twice, delimiters = (Column(documents, name).all() for name in ("twice", "delimiters"))
        tokens = format.tokens_per_frame
        lengths = {
            "drawn": whole,
            "unconditional": np.where(shown > 0, delimiters + tokens * (shown + twice), whole),
            "read": whole - tokens * twice,
        }
        self.lengths = np.stack([lengths[variant] for variant in self.variants]).astype(np.int32)

    def laid_out(self, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """One page in one variant; a page without pictures is the same in each."""
        ids, learned = super().laid_out(draw)
        variant, marks = self.variants[draw.variant], ids < 0
        if variant == "read":
            ids = np.where(marks, READ, ids)
        elif variant == "unconditional" and marks.any():
            t = self.format.tokenizer
            kept = marks | np.isin(ids, [t.bos_id, t.eos_id, t.boi_id, t.eoi_id])
            ids, learned = ids[kept], np.zeros(int(kept.sum()), bool)
        return ids, learned

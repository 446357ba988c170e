"""Documents of pictures and captions, whatever files they are from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from data_modules.dataset import DocumentDataset, DocumentFormat, Draw
from data_modules.reading.pairs import Pairs
from lit_mm.sequence import Document, Text


@dataclass(frozen=True)
class CaptionShares:
    """Shares of draws that show the caption first, none, or the picture first; of those with one, that of each."""

    caption_first: float
    unconditional: float
    image_first: float
    captions: tuple[float, ...]


class ImageTextDataset(DocumentDataset):
    """Pairs in three variants, the first and last once for each caption.

    Attributes:
        variants: their names, in the order of `lengths`.
        captions: the number of the caption that each shows.
        skipped_at_setup: pairs left out because they cannot be read.
    """

    def __init__(self, source: str, pairs: Pairs, shares: CaptionShares, format: DocumentFormat) -> None:
        self.source, self.pairs = source, pairs
        self.pictures = pairs.pictures
        count = len(shares.captions)
        self.variants = ("caption_first",) * count + ("unconditional",) + ("image_first",) * count
        self.captions = (*range(count), None, *range(count))
        first, last = ([share * one for one in shares.captions] for share in (shares.caption_first, shares.image_first))
        self.shares = (*first, shares.unconditional, *last)
        self.format = format
        self.skipped_at_setup, self.files = pairs.counts.lost, pairs.files
        self.captions_cut = pairs.counts.cut
        bare = 2 + format.bracketed_frames(1)
        self.lengths = pairs.lengths(self.captions, (bare,) * len(self.captions))

    def document(self, draw: Draw) -> Document:
        """One pair; see `variants`. One without a caption is unconditional in each."""
        t, number = self.format.tokenizer, self.captions[draw.variant]
        caption = self.pairs.caption_ids(draw.index, number or 0)
        variant = self.variants[draw.variant] if caption else "unconditional"
        clean = int(variant == "image_first")
        frames = self.frames(self.keys_of(draw), clean, draw.seed)
        if variant == "unconditional":
            caption = []
        if variant == "caption_first":
            opening = Text(torch.tensor([t.bos_id, *caption, t.boi_id]))
            return Document((opening, *frames, Text(t.ids(t.eoi_id, t.eos_id))), self.source)
        # That a document begins with a picture is our choice, nothing to be learned.
        opening = Text(t.ids(t.bos_id, t.boi_id), loss=False)
        closing = Text(torch.tensor([t.eoi_id, *caption, t.eos_id]))
        return Document((opening, *frames, closing), self.source)

    def keys_of(self, draw: Draw) -> list[int]:
        """Of its picture."""
        return [self.pairs.picture_key(draw.index)]

    def picture_keys(self) -> np.ndarray:
        """Those of all pairs."""
        return self.pairs.picture_keys()

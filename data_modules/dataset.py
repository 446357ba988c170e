"""What a source of documents offers to the sampler and to the workers."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data_modules.reading.lengths import MappedLengths
from lit_mm.mistake import Mistake
from lit_mm.sequence import Document, Frame
from lit_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

    from data_modules.reading.picture_source import PictureReader, PictureSource


class Draw(NamedTuple):
    """One use of one document: which document, in which variant, and the seed of whatever is random about it."""

    index: int  # type: ignore[assignment]  # a tuple's own `index` is never used
    variant: int
    seed: int


class BrokenFile(Mistake):
    """A file that broke while it was being read (a cut MP4, a corrupt PNG, bad UTF-8).

    Raised by `DocumentDataset.document`; whether it ends the run or the document is left out is `on_error`'s choice.
    """

    what = "broke while being read"

    def __init__(self, path: object, reason: object = None) -> None:
        # A worker's error is made again in the main process from its message alone. Libraries write several lines.
        self.path, self.reason = str(path), " ".join(filter(None, map(str.strip, str(reason).splitlines())))
        super().__init__(str(path) if reason is None else f"'{path}' {self.what}: {self.reason}")


class RefusedFile(BrokenFile):
    """A file that may be whole, but is not read."""

    what = "is not read"


@dataclass(frozen=True)
class DocumentFormat:
    """What all sources of a run share: the tokenizer, the side of a picture in pixels, the tokens of a frame."""

    tokenizer: Tokenizer
    image_size: int
    tokens_per_frame: int

    def bracketed_frames(self, count: int) -> int:
        """Positions of `count` frames, each between `<boi>` and `<eoi>`."""
        return count * (self.tokens_per_frame + 2)


class DocumentDataset(ABC):
    """Map-style documents whose lengths are known before any file is decoded.

    A source may show one document in several *variants* (caption first, picture first, caption dropped …); the
    sampler picks the variant by `shares`, so a row can be planned from `lengths` alone.

    Attributes:
        source: name of the source, copied into every document.
        lengths: (variants, documents) int32, positions each document takes in each variant; an array, or what is
            indexed like one and lies in a file.
        shares: (variants,) share of draws that show each variant, summing to 1.
        splittable: whether a document may be cut at any position (text only).
        files: path, bytes and time of change of the files behind the documents, for those who compare them.
        appends: whether documents of new files come after all others.
        pictures: where the frames of documents come from; None without frames.
        captions_cut: how many captions are longer than is kept.
        skipped_at_setup: documents, or files of several, left out because they cannot be read.
        variants: names of the variants, in the order of `lengths`; none where there is but one.
        latents: read instead of `pictures` if given (see `data_modules.reading.latent_store`).
    """

    source: str
    lengths: np.ndarray | MappedLengths
    shares: tuple[float, ...] = (1.0,)
    splittable: bool = False
    files: Sequence[tuple[str, int, int | str]] = ()
    appends: bool = True
    captions_cut: int = 0
    skipped_at_setup: int = 0
    variants: tuple[str, ...] = ()
    pictures: PictureSource | None = None
    latents: PictureReader | None = None

    def __len__(self) -> int:
        return int(self.lengths.shape[1])

    @property
    def longest(self) -> int:
        """Positions of the longest document in its longest variant."""
        return int(np.max(self.lengths, initial=0)) if isinstance(self.lengths, np.ndarray) else self.lengths.longest

    @property
    def picture_count(self) -> int:
        """Pictures that documents show, each counted once."""
        return len(self.picture_keys())

    @abstractmethod
    def document(self, draw: Draw) -> Document:
        """Read one document; it takes exactly `lengths[draw.variant, draw.index]` positions.

        Raises:
            BrokenFile: the file behind it cannot be read.
        """

    def ahead(self, draw: Draw) -> None:
        """Have the pictures of a document on their way, which will be read soon."""
        reader = self.latents or self.pictures
        if reader is not None:
            reader.ahead(self.keys_of(draw))

    def keys_of(self, draw: Draw) -> Sequence[int]:
        """Keys of the pictures of a document, in their order; by default it has none."""
        return ()

    def picture_keys(self) -> np.ndarray:
        """(pictures,) int64, ascending: every picture of `pictures` that some document shows, once."""
        return np.zeros(0, np.int64)

    def with_latents(self, latents: PictureReader | None) -> Self:
        """The same documents with latents in place of pixels: their files are no longer opened."""
        other = copy.copy(self)
        other.latents = latents
        return other

    def frames(self, keys: Sequence[int], clean: int = 0, seed: int = 0) -> list[Frame]:
        """The pictures with these keys as frames, the first `clean` of which are read only.

        Args:
            keys: of the pictures.
            clean: how many are not drawn.
            seed: of the draw that shows them.

        Raises:
            BrokenFile: a file behind one of them cannot be read.
        """
        assert self.pictures is not None
        images = self.latents.read(keys) if self.latents else self.pictures.read_drawn(keys, seed)
        return [
            Frame(image, number < clean, self.pictures.origin(key))
            for number, (key, image) in enumerate(zip(keys, images, strict=True))
        ]

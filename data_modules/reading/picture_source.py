"""The pictures that a source shows: decoded whenever a document is read, or all of them once, to be cached."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from torch import Tensor


class PictureReader(ABC):
    """Gives the pictures that documents ask for by key, as pixels or as latents made of them before."""

    @abstractmethod
    def read(self, keys: Sequence[int]) -> list[Tensor]:
        """One picture per key: (3, size, size) uint8 pixels, or (tokens, channels) latents.

        Raises:
            BrokenFile: a file behind one of them cannot be read.
        """

    def ahead(self, keys: Sequence[int]) -> None:
        """Have what will be read soon on its way, where that takes time; by default nothing is."""
        return None


class PictureSource(PictureReader):
    """Pictures as files have them.

    A key is an int64 that means one picture to the source; keys ascend in the order in which files are best read.

    Attributes:
        cut_anew: whether `read_drawn` shows another part of a picture for another seed.
        root: folder from which its files are named, see `root_of`.
    """

    cut_anew: bool = False
    root: str = ""

    def read_drawn(self, keys: Sequence[int], seed: int) -> list[Tensor]:
        """As `read`, for one draw of a document; its seed chooses whatever is random about the pictures."""
        return self.read(keys)

    @abstractmethod
    def origin(self, key: int) -> str:
        """Where a picture is from, for messages: its file, and in a video the frame's number."""

    @abstractmethod
    def identities(self, keys: np.ndarray) -> np.ndarray:
        """(n,) uint64, what each picture is: equal numbers, equal pictures.

        They depend on the file (its name below `root`, size and time of change), on the place in it and on how pictures
        are brought to their size, and not on what else the source shows.

        Args:
            keys: (n,) int64, ascending.
        """

"""Where every position of a packed row belongs: the only thing the backbone knows about its input besides vectors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SequenceLayout:
    """Document, frame and position of every token. Masks and routing are derived from it.

    Attributes:
        document_ids: (B, L) int32, 0, 1, ... within a row, -1 for padding.
        frame_ids: (B, L) int32, 0, 1, ... within a row, -1 for text and padding.
        positions: (B, L) int64, counted from 0 in every document.
        branch_ids: (B, L) int32, ways to go on from branch 0 of a document, which do not see each other; all of them
            are 0 by default.
        kinds: (B, L) int64, what experts are counted by, see `specialisation.token_kinds`; by default text is told from
            visual tokens, all of which are taken to be read.
    """

    document_ids: Tensor
    frame_ids: Tensor
    positions: Tensor
    branch_ids: Tensor | None = None
    kinds: Tensor | None = None

    @property
    def visual(self) -> Tensor:
        """(B, L) bool, true for tokens of a frame."""
        return self.frame_ids >= 0

    def at(self, index: Tensor) -> SequenceLayout:
        """The layout (1, T) of some tokens (T,), numbered among the B x L, for routing; branches are left out."""
        ids = (self.document_ids, self.frame_ids, self.positions)
        return SequenceLayout(*(values.flatten()[index][None] for values in ids))

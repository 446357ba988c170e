"""Pictures and their captions, taken out of packed rows again."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lit_mm.sequence import PackedBatch


class Pairs(NamedTuple):
    """P pictures with their captions.

    Attributes:
        images: (P, 3, height, width) uint8.
        captions: (P, T) int64 token ids without delimiters, 0 behind the end.
        lengths: (P,) int64, tokens of each caption.
        source_ids: (P,) int64, index into the batch's sources.
    """

    images: Tensor
    captions: Tensor
    lengths: Tensor
    source_ids: Tensor


def caption_pairs(batch: PackedBatch, longest: int) -> Pairs:
    """Every frame with the text of its document; frames of documents without text are left out.

    Delimiters are known by their places: at both ends of a document, and on both sides of a frame.

    Args:
        batch: its frames have to be pixels.
        longest: captions are cut to so many tokens.
    """
    caption = _caption_positions(batch)
    length = batch.tokens.shape[1]
    first = batch.visual_positions[:, 0]
    rows, columns = first // length, first % length
    document = batch.document_ids[rows, columns]
    of_frame = caption[rows] & (batch.document_ids[rows] == document[:, None])  # (F, L)
    # Where each token goes in its caption; all that is not wanted goes to one more column, which is dropped.
    column = torch.where(of_frame, of_frame.cumsum(1) - 1, longest).clamp(max=longest)
    captions = batch.tokens.new_zeros(len(first), longest + 1).scatter_(1, column, batch.tokens[rows])[:, :longest]
    lengths = of_frame.sum(1).clamp(max=longest)
    has = lengths.nonzero().squeeze(1)
    captions = torch.where(torch.arange(longest, device=lengths.device) < lengths[:, None], captions, 0)
    return Pairs(batch.frames[has], captions[has], lengths[has], batch.frame_source_ids[has])


def _caption_positions(batch: PackedBatch) -> Tensor:
    """(B, L) bool: text that is no delimiter."""
    documents = batch.document_ids
    visual = batch.frame_ids >= 0
    edge = torch.ones_like(visual[:, :1])
    changes = documents[:, 1:] != documents[:, :-1]
    first, last = torch.cat([edge, changes], 1), torch.cat([changes, edge], 1)
    no = torch.zeros_like(edge)
    beside_frame = torch.cat([visual[:, 1:], no], 1) | torch.cat([no, visual[:, :-1]], 1)
    return (documents >= 0) & ~(visual | first | last | beside_frame)

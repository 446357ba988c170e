"""What a dataset promises, compared with what it gives."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from data_modules.dataset import DocumentDataset, Draw
from data_modules.reading.lengths import MappedLengths
from lit_mm.mistake import Mistake
from lit_mm.sequence import Document, Frame, Text


def check_lengths(source: str, dataset: DocumentDataset) -> None:
    """Refuse lengths that no row can be planned from.

    Args:
        source: name of the source.
        dataset: its documents.

    Raises:
        Mistake: `lengths` is no array of integers (variants, documents), or `shares` are of other variants.
    """
    lengths = getattr(dataset, "lengths", None)
    if not isinstance(lengths, np.ndarray | MappedLengths) or lengths.ndim != 2 or lengths.dtype.kind not in "iu":
        what = f"{lengths.dtype} of shape {lengths.shape}" if isinstance(lengths, np.ndarray) else _type(lengths)
        raise Mistake(
            f"source '{source}': lengths is {what}; an int32 array of shape (variants, documents) is expected"
        )
    if len(lengths) != len(dataset.shares):
        raise Mistake(
            f"source '{source}': lengths has {len(lengths)} variants, but shares has {len(dataset.shares)}; give each "
            "variant one"
        )


def check_document(
    source: str, dataset: DocumentDataset, draw: Draw, document: Document, tokens_per_frame: int
) -> None:
    """Refuse a document that does not fit into the place that was planned for it.

    Args:
        source: name of the source.
        dataset: where the document is from.
        draw: which one it is.
        document: all of it, before any is cut off.
        tokens_per_frame: positions of a frame.

    Raises:
        Mistake: it is no `Document` of text and frames, is of another source, or has another length than promised.
    """
    which = f"source '{source}': document {draw.index}"
    if not isinstance(document, Document):
        raise Mistake(f"{which} is {_type(document)}; a lit_mm.sequence.Document is expected")
    if not isinstance(document.segments, tuple | list):
        raise Mistake(f"{which} has {_type(document.segments)} for its segments; a tuple of Text and Frame is expected")
    for segment in document.segments:
        _check_segment(which, segment)
    if document.source != source:
        raise Mistake(f"{which} says that its source is '{document.source}'; give it the name that `dataset` was given")
    length, promised = document.length(tokens_per_frame), int(dataset.lengths[draw.variant, draw.index])
    if length != promised:
        variant = f" in variant {draw.variant}" if len(dataset.lengths) > 1 else ""
        raise Mistake(f"{which}{variant} has {length} positions, but lengths promises {promised}")


def _check_segment(which: str, segment: object) -> None:
    if isinstance(segment, Text):
        ids = segment.ids
        if not isinstance(ids, Tensor) or ids.ndim != 1 or ids.is_floating_point():
            what = f"{ids.dtype} of shape {tuple(ids.shape)}" if isinstance(ids, Tensor) else _type(ids)
            raise Mistake(f"{which} has a Text whose ids are {what}; an int64 tensor of shape (ids,) is expected")
    elif not isinstance(segment, Frame):
        raise Mistake(f"{which} has a segment that is {_type(segment)}; a Text or a Frame is expected")
    elif not isinstance(segment.image, Tensor):
        raise Mistake(f"{which} has a Frame whose image is {_type(segment.image)}; a tensor is expected")


def _type(thing: object) -> str:
    name = type(thing).__name__
    return "None" if thing is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"

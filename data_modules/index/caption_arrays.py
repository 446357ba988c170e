"""Captions of the samples of one file as arrays: their tokens, and which samples come first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from lit_mm.tokenizer import Tokenizer

BROKEN, NO_CAPTION, CUT_CAPTION, GUESSED = 1, 2, 4, 8  # flags of a sample; GUESSED captions are not UTF-8


def caption_arrays(
    texts: Sequence[Sequence[str]], count: int, flags: Sequence[int], longest: int, tokenizer: Tokenizer
) -> tuple[dict[str, np.ndarray], list[int]]:
    """Tokenize the captions of all samples.

    Args:
        texts: the captions of each sample, empty ones where there are none. A sample that lacks one has the first that
            it has in its place.
        count: of captions of a sample.
        flags: what is known of each, of BROKEN and GUESSED.
        longest: tokens to which captions are cut.
        tokenizer: of the captions.

    Returns:
        Arrays, a row for each sample: first those with a caption, then those without, then the broken ones, each as
        they came:
            tokens: (samples, captions) uint16, of the captions.
            flags: (samples,) uint8, see BROKEN.
            starts: (samples, captions) uint32, where their ids begin in `ids`.
            ids: uint16 or uint32, tokens of all captions.
        And the numbers of the samples in this order.
    """
    tokenized = tokenizer.encode_batch(list(chain.from_iterable(texts)))
    all_ids = [tokenized[at : at + count] for at in range(0, len(tokenized), count)]
    found = [
        known | (0 if any(ids) else NO_CAPTION) | (CUT_CAPTION if max(map(len, ids)) > longest else 0)
        for known, ids in zip(flags, all_ids, strict=True)
    ]
    order = sorted(range(len(texts)), key=lambda i: 4 if found[i] & BROKEN else found[i] & NO_CAPTION)
    ids = [one[:longest] for i in order for one in all_ids[i]]
    tokens = np.array([len(one) for one in ids], np.uint16).reshape(-1, count)
    starts = (np.cumsum(tokens, dtype=np.uint64).reshape(-1, count) - tokens).astype(np.uint32)
    first = (tokens > 0).argmax(axis=1)[:, None]
    missing = tokens == 0
    return {
        "tokens": np.where(missing, np.take_along_axis(tokens, first, 1), tokens),
        "flags": np.array([found[i] for i in order], np.uint8),
        "starts": np.where(missing, np.take_along_axis(starts, first, 1), starts),
        "ids": np.fromiter(chain.from_iterable(ids), np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32),
    }, order


def counts_of(flags: np.ndarray) -> dict[str, int]:
    """How many samples have a caption, have none (`bare`), are broken (`lost`), and have captions cut or guessed."""
    kind = flags & (BROKEN | NO_CAPTION)
    return {
        "captioned": int(np.count_nonzero(kind == 0)),
        "bare": int(np.count_nonzero(kind == NO_CAPTION)),
        "lost": int(np.count_nonzero(kind & BROKEN)),
        "cut": int(np.count_nonzero(flags & CUT_CAPTION)),
        "guessed": int(np.count_nonzero(flags & GUESSED)),
    }

"""Windows of tokens that other programs have made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from data_modules.dataset import BrokenFile
from data_modules.index.unpacked_shards import TokenShard
from data_modules.reading.text_windows import TextWindows


class TokenWindows(TextWindows):
    """Documents of shards, cut into windows as even as can be. Nothing is added to them.

    Args:
        shards: in order.
        window: most tokens of a window.
        vocab_size: of the tokenizer that the tokens have to be of.
    """

    def __init__(self, shards: Sequence[TokenShard], window: int, vocab_size: int) -> None:
        self.shards, self.vocab_size = shards, vocab_size
        self.files = tuple((shard.file.path, shard.file.size, shard.file.changed) for shard in shards)
        tokens = np.concatenate([shard.tokens for shard in shards])
        counts = -(-tokens // window)
        document = np.repeat(np.arange(len(tokens)), counts)
        number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        first, stop = (tokens[document] * (number + more) // counts[document] for more in (0, 1))
        kept = stop - first > 1  # a single token has nothing to be predicted from
        self._document, self._first = document[kept], first[kept]
        self._documents = np.cumsum([0, *(len(shard.tokens) for shard in shards)])
        self.lengths = (stop - first)[kept][None].astype(np.int32)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_bytes"}

    @cached_property
    def _bytes(self) -> list[np.ndarray]:
        return [shard.content() for shard in self.shards]

    def ids(self, window: int) -> np.ndarray:
        """Tokens of a window.

        Raises:
            BrokenFile: one is not of the tokenizer.
        """
        document = int(self._document[window])
        number = int(np.searchsorted(self._documents, document, side="right")) - 1
        shard = self.shards[number]
        width = np.dtype(shard.kind).itemsize
        start = int(shard.starts[document - self._documents[number]]) + width * int(self._first[window])
        content = self._bytes[number][start : start + width * int(self.lengths[0, window])]
        ids = np.frombuffer(content.tobytes(), f"<{shard.kind}").astype(np.int64)
        if ids.min() < 0 or ids.max() >= self.vocab_size:
            worst = int(ids.min()) if ids.min() < 0 else int(ids.max())
            raise BrokenFile(
                shard.file.path,
                f"it has the token {worst}, but data.tokenizer has {self.vocab_size}; name the tokenizer that it was "
                "made with",
            )
        return ids

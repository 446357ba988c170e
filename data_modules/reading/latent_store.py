"""Latents in place of pictures, read by ranges of bytes from local or remote files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.index.input_files import local_file
from data_modules.index.range_cache import RangeCache
from data_modules.index.ranges import RangeReader
from data_modules.index.storage import UnreachedFile, is_remote
from data_modules.reading.latent_shards import Encoder, Shard, StaleLatents, open_shard
from data_modules.reading.latent_table import ROW_BITS, PlaceTable
from data_modules.reading.picture_source import PictureReader

MAX_OPEN = 1024  # files whose headers a process keeps


class _Run(NamedTuple):
    """Rows of a file that follow on each other."""

    file: int
    row: int
    rows: int


class LatentStore(PictureReader):
    """Latents of a source's pictures.

    Args:
        table: where they lie, see `PlaceTable`.
        encoder: what made them.
        cache: keeps what is read of remote files; None keeps nothing.

    Raises:
        OSError, ValueError: the table was not made yet, or is not whole.
    """

    def __init__(self, table: Path, encoder: Encoder, cache: RangeCache | None = None) -> None:
        self.file, self.encoder = table, encoder
        self.ranges, self.table = RangeReader(cache), PlaceTable(table)
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"table": self.file, "encoder": self.encoder, "cache": self.ranges.cache}  # each process maps its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def read(self, keys: Sequence[int]) -> list[Tensor]:
        """Latents (tokens, channels) of the pictures with these keys, in the number format of the disk.

        Raises:
            BrokenFile: a picture could not be read when it was to be encoded, or a storage does not give its latents.
            StaleLatents: a file of latents is gone, or is no longer what it was.
            KeyError: there is no such picture.
        """
        found: list[Tensor] = []
        for run in self._runs(keys):
            shard = self._shard(run.file)
            for row in range(run.row, run.row + run.rows):
                if row in shard.broken:
                    raise BrokenFile(*shard.broken[row])
            try:
                content = self.ranges.read(shard.file, *self._place(shard, run))
            except UnreachedFile:
                raise
            except BrokenFile as error:
                where = f"'{shard.file.path}' of the latent cache"
                raise StaleLatents(f"{where} cannot be read ({error.reason}); start again to make it anew") from error
            numbers = torch.frombuffer(bytearray(content), dtype=getattr(torch, self.encoder.dtype))
            found += numbers.view(run.rows, self.encoder.tokens, self.encoder.channels).unbind()
        return found

    def ahead(self, keys: Sequence[int]) -> None:
        """Have them on their way. What is wrong with them is said when they are read."""
        with suppress(BrokenFile, StaleLatents):
            for run in self._runs(keys):
                shard = self._shard(run.file)
                self.ranges.ahead(shard.file, *self._place(shard, run))

    def _runs(self, keys: Sequence[int]) -> list[_Run]:
        """What is read at once: neighbouring keys whose latents are neighbours."""
        runs: list[_Run] = []
        for place in self.table.places(keys):
            file, row = place >> ROW_BITS, place & (1 << ROW_BITS) - 1
            if runs and (last := runs[-1]).file == file and last.row + last.rows == row:
                runs[-1] = last._replace(rows=last.rows + 1)
            else:
                runs.append(_Run(file, row, 1))
        return runs

    def _place(self, shard: Shard, run: _Run) -> tuple[int, int]:
        size = self.encoder.picture_bytes
        return shard.latents + run.row * size, run.rows * size

    def _shard(self, number: int) -> Shard:
        if number not in self._open:
            while len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)
            file = self.table.files[number]
            try:
                file = file if is_remote(file.path) else local_file(Path(file.path))
            except OSError as error:
                raise StaleLatents(f"'{file.path}' of the latent cache is gone; start again to make it anew") from error
            self._open[number] = open_shard(file, self.encoder, self.ranges)
        self._open.move_to_end(number)
        return self._open[number]

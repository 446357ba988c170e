"""The files of a run, looked up by one process and told to the others: a file system need not answer every rank."""

from __future__ import annotations

from collections.abc import Sequence

import torch.distributed as dist

from data_modules.index.input_files import find_input_files
from data_modules.index.storage import InputFile


class Listing:
    """Files behind patterns, as they were when they were first asked for."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, tuple[str, ...]], list[InputFile]] = {}

    def find(self, pattern: str, suffixes: Sequence[str], key: str, beside: Sequence[str] = ()) -> list[InputFile]:
        """See `find_input_files`."""
        asked = (pattern, tuple(suffixes))
        if asked not in self._found:
            self._found[asked] = find_input_files(pattern, suffixes, key, beside)
        return self._found[asked]

    def agree(self) -> bool:
        """Take over what the first rank has found, so that all plan from the same files. Every rank has to call it.

        Returns:
            Whether this rank had found others, as files were added in between.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return False
        told = [self._found]
        dist.broadcast_object_list(told)
        differs = any(self._found.get(asked, files) != files for asked, files in told[0].items())
        self._found = dict(told[0])
        return differs

"""The files of a run, looked up by one process and told to the others: a file system need not answer every rank."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch.distributed as dist

from data_modules.index.input_files import find_input_files
from data_modules.index.storage import InputFile
from data_modules.mixing.together import is_distributed
from data_modules.reading.files import Stamps, find_files, stamp

Found = TypeVar("Found")


class Listing:
    """What was looked up, as it was when it was first asked for."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}

    def find(self, pattern: str, suffixes: Sequence[str], key: str, beside: Sequence[str] = ()) -> list[InputFile]:
        """See `find_input_files`."""
        return self.look((pattern, tuple(suffixes)), lambda: find_input_files(pattern, suffixes, key, beside))

    def stamps(self, pattern: str, suffixes: Sequence[str], key: str, beside: Sequence[str] = ()) -> Stamps:
        """Files of this machine, by the names that a user gives; see `find_files`."""
        return self.look(
            ("stamps", pattern, tuple(suffixes)), lambda: stamp(find_files(pattern, suffixes, key, beside))
        )

    def look(self, asked: Hashable, looking: Callable[[], Found]) -> Found:
        """What `looking` finds, which is asked once.

        Args:
            asked: what it looks for.
            looking: looks it up.
        """
        if asked not in self._found:
            self._found[asked] = looking()
        found: Found = self._found[asked]
        return found

    def agree(self) -> bool:
        """Take over what the first rank has found, so that all plan from the same files. Every rank has to call it.

        Returns:
            Whether this rank had found others, as files were added in between.
        """
        if not is_distributed():
            return False
        told = [self._found]
        dist.broadcast_object_list(told)
        differs = any(self._found.get(asked, found) != found for asked, found in told[0].items())
        self._found = dict(told[0])
        return differs

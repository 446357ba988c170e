"""Indexes of a source's files that a process holds open: those it read from last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_modules.index.array_file import ArrayFile
from data_modules.index.sidecars import Sidecar
from lit_mm.mistake import Mistake

MAX_OPEN = 256  # indexes that a process keeps mapped


class OpenIndexes:
    """Maps indexes when they are first asked for; a process that gets a copy maps its own.

    Args:
        sidecars: of all files of a source, in order.
        view: the file that says that all of them are there.
    """

    def __init__(self, sidecars: Sequence[Sidecar], view: Path) -> None:
        self.sidecars, self.view = sidecars, view
        self._open: OrderedDict[int, ArrayFile] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __getitem__(self, number: int) -> ArrayFile:
        """The index of a file.

        Raises:
            Mistake: it is no longer there; the next start makes it again.
        """
        if number not in self._open:
            while len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)
            sidecar = self.sidecars[number]
            try:
                self._open[number] = sidecar.open()
            except (OSError, ValueError) as error:
                self.view.unlink(missing_ok=True)
                raise Mistake(
                    f"data.loader.cache: '{sidecar.path}', the index of '{sidecar.file.path}', is gone or cut; start "
                    "again to make it anew"
                ) from error
        self._open.move_to_end(number)
        return self._open[number]

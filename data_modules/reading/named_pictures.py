"""Pictures that a table names."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.reading.cropping import Cut
from data_modules.reading.pictures import read_picture
from data_modules.reading.walking import as_stored


def read_named_picture(name: str, table: str | Path, folder: Path | None, size: int, cut: Cut | None) -> Tensor:
    """A picture file, (3, size, size) uint8, its centre or what `cut` says.

    Args:
        name: its path as the table has it.
        table: the file that names it, or the folder of several.
        folder: that names are relative to; that of the table by default.
        size: side of the result in pixels.
        cut: how the square is cut out.

    Raises:
        BrokenFile: it is not there, or cannot be read.
    """
    table = Path(table)
    try:
        return read_picture(as_stored((folder or (table if table.is_dir() else table.parent)) / name), size, cut=cut)
    except BrokenFile as error:
        if isinstance(error.__cause__, FileNotFoundError):
            place = "beside it" if folder is None else f"in '{folder}'"
            raise BrokenFile(f"'{table}' names '{name}', but there is no such file {place}") from error
        raise

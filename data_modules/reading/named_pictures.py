"""Pictures that a table names, or ought to name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.prompting.prompt_items import PICTURE_SUFFIXES
from data_modules.reading.cropping import Cut
from data_modules.reading.pictures import read_picture
from data_modules.reading.walking import as_stored
from lit_mm.mistake import MissingFile


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
        if is_absent(error, name):
            place = "beside it" if folder is None else f"in '{folder}'"
            raise BrokenFile(f"'{table}' names '{name}', but there is no such file {place}") from error
        raise


def is_absent(error: BrokenFile, name: str) -> bool:
    """Whether a picture could not be read because there is no file of its name; a name may not hold a zero."""
    return isinstance(error.__cause__, FileNotFoundError) or "\0" in name


@contextmanager
def pictures_alone_are_told(path: str) -> Iterator[None]:
    """Say what is missing where there are pictures, but nothing that captions them."""
    try:
        yield
    except MissingFile as error:
        folder = Path(path).expanduser()
        count = sum(file.suffix.lower() in PICTURE_SUFFIXES for file in folder.rglob("*")) if folder.is_dir() else 0
        if not count:
            raise
        raise MissingFile(
            f"{error}, but {count} pictures; write a metadata.jsonl beside them, a line for each: "
            '{"file_name": "1.png", "caption": "a red cube"}'
        ) from error

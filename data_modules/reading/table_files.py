"""Files of tables that are read together, from however many folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from data_modules.reading.files import Stamps

JSON = ".json"  # of COCO's annotations


def common_folder(files: Sequence[str | Path]) -> Path:
    """The folder that all files are in, however deep."""
    return Path(os.path.commonpath([Path(file).parent for file in files]))


def alike(stamps: Stamps, image: str, named: str) -> Iterator[tuple[str, str, Stamps]]:
    """Neighbours among files that are read as one table.

    Args:
        stamps: of the files, folder by folder.
        image: the column of pictures.
        named: that of image folders, whose files are called `metadata`.

    Yields:
        Endings of some files, their column of pictures, and the files; COCO's are those of one folder.
    """

    def kind(folder: tuple[Path, Stamps]) -> tuple[str, str, Path | None]:
        files = [Path(file) for file, _, _ in folder[1]]
        endings = sorted({file.suffix for file in files})
        column = named if all(file.name.startswith("metadata.") for file in files) else image
        return "".join(endings), column, folder[0] if JSON in endings else None

    folders = [(folder, tuple(some)) for folder, some in groupby(stamps, lambda stamp: Path(stamp[0]).parent)]
    for (endings, column, _), group in groupby(folders, kind):
        yield endings, column, tuple(stamp for _, some in group for stamp in some)

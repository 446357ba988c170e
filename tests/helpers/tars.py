"""Tars of pictures and captions as tools of the field write them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

Member = tuple[str, bytes]


def picture(colour: tuple[int, int, int], format: str = "PNG") -> bytes:
    """A picture of one colour, 40 x 32, as a file."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 32), colour).save(buffer, format, **({} if format == "PNG" else {"quality": 95}))
    return buffer.getvalue()


def write_tar(path: Path, members: Iterable[Member], format: int = tarfile.GNU_FORMAT) -> Path:
    """A tar of these members in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def pairs(count: int, first: int = 0) -> list[Member]:
    """Members of so many pairs; the colour of picture i is (i, 0, 0), its caption `a cat number i`."""
    return [
        member
        for i in range(first, first + count)
        for member in ((f"{i:05}.png", picture((i, 0, 0))), (f"{i:05}.txt", f"a cat number {i}".encode()))
    ]

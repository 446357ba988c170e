"""Videos in tars, local and remote, with the files beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import datasets

from data_modules.dataset import BrokenFile
from data_modules.index.storage import InputFile, fetch, opened
from data_modules.index.tar_samples import DamagedTar, SampleGrouper, tar_members
from data_modules.reading.cached import generated
from data_modules.reading.decoding import VIDEO_SUFFIXES
from data_modules.reading.files import Stamps
from data_modules.reading.recordings import VideoInTar
from lit_mm.mistake import mistake_in

TAR = ".tar"
AHEAD = 1 << 16  # bytes that come with a member's header: captions beside a video, and little of the video itself
FEATURES = {name: datasets.Value("string") for name in ("member", "beside")}
FEATURES |= {name: datasets.Value("int64") for name in ("offset", "size")}


class Place(NamedTuple):
    """Where a video is in a tar.

    Attributes:
        member: its name.
        offset: of its first byte.
        size: in bytes.
        beside: offset and size of the members that share its name, by their endings.
    """

    member: str
    offset: int
    size: int
    beside: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class VideoInRemoteTar(VideoInTar):
    """A video that is a member of a tar on another machine; it is read by ranges of bytes.

    Args:
        tar_size: of the tar in bytes.
        changed: see `InputFile`.
    """

    tar_size: int
    changed: str

    @property
    def part(self) -> str:
        """Where its bytes are, and in which state of the tar."""
        return f"{super().part} {self.changed}"

    def stamps(self, columns: bool = False) -> Stamps:
        """Of the tar, as its storage told."""
        return ((self.path, self.tar_size, self.changed),)

    @property
    def tar(self) -> InputFile:
        """What is opened."""
        return InputFile(self.path, self.tar_size, self.changed)

    def content_beside(self, ending: str) -> bytes:
        """Bytes of the member that has its name otherwise."""
        return fetch(self.path, *self.beside[ending])


def videos_in_tar(tar: Path) -> Iterator[VideoInTar]:
    """The videos in a tar; each knows of the members that share its name.

    Raises:
        BrokenFile: the tar is cut or overwritten.
    """
    with open(tar, "rb") as stream:
        for place in _places(stream, os.path.getsize(tar), str(tar)):
            yield VideoInTar(str(tar), *place)


def videos_in_remote_tar(file: InputFile) -> Iterator[VideoInRemoteTar]:
    """The videos in a tar on another machine. What is in it is looked up once.

    Raises:
        BrokenFile: the tar is cut or overwritten, or its storage fails.
    """
    try:
        rows = generated(_rows, [(file.path, file.size, file.changed)], {}, datasets.Features(FEATURES))
    except datasets.exceptions.DatasetGenerationError as error:
        raise mistake_in(error) or error from error
    for row in rows:
        where = Place(row["member"], row["offset"], row["size"], json.loads(row["beside"]))
        yield VideoInRemoteTar(file.path, *where, file.size, file.changed)


def _rows(items: Stamps) -> Iterator[dict[str, str | int]]:
    for path, size, changed in items:
        with opened(InputFile(path, size, str(changed)), AHEAD) as stream:
            for place in _places(stream, size, path):
                yield {**place._asdict(), "beside": json.dumps(place.beside)}


def _places(stream: IO[bytes], size: int, tar: str) -> Iterator[Place]:
    grouper, names = SampleGrouper(), {}
    try:
        for name, member in tar_members(stream, size):
            grouper.add(name, member)
            names[member.offset] = name
    except DamagedTar as error:
        raise BrokenFile(tar, error.reason) from error
    for sample in grouper.samples:
        for ending, member in sample.members.items():
            if f".{ending}".endswith(VIDEO_SUFFIXES):
                beside = {e: (m.offset, m.size) for e, m in sample.members.items() if e != ending}
                yield Place(names[member.offset], member.offset, member.size, beside)

"""Recordings: what the frames of a clip or an episode come from, a video, a part of one, or a folder of pictures."""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.index.storage import InputFile
from data_modules.reading.decoding import VideoReader, index_video
from data_modules.reading.episode_tables import TABLE_SUFFIXES, parsed_columns, read_table, tables_of
from data_modules.reading.files import Stamps, stamp
from data_modules.reading.pictures import Square
from data_modules.reading.time_stamps import VideoIndex

NAMES = "names"  # of frames say when they were taken
NUMBER = r"\d+\.\d+|\d+"  # in the name of a frame
MICROSECOND = 1e-6


@dataclass(frozen=True)
class Recording(ABC):
    """Frames in their order.

    Args:
        path: of its file or folder.
    """

    path: str

    @property
    def name(self) -> str:
        """What it is called; its last part tells it from others of a source."""
        return self.path

    @property
    def place(self) -> str:
        """All that it is made of, for a table; see `recording_of`."""
        kind = type(self)
        return json.dumps({"class": f"{kind.__module__}:{kind.__qualname__}", **asdict(self)})

    @property
    def part(self) -> str:
        """Which part of its file it is; nothing where it is all of it."""
        return ""

    def files(self) -> list[Path]:
        """Files (or folders) on which frames depend."""
        return [Path(self.path)]

    def table_file(self) -> Path | None:
        """The file of its columns, if it is another."""
        return next(iter(tables_of(Path(self.path))), None)

    def stamps(self, columns: bool = False) -> Stamps:
        """Path, bytes and time of change of the files of frames, or of frames and columns."""
        table = self.table_file() if columns else None
        try:
            return stamp([*self.files(), *([table] if table else [])])
        except FileNotFoundError as error:
            raise BrokenFile(error.filename, "it is not there") from error

    def stamps_beside(self, ending: str) -> Stamps:
        """Of the file that has its name otherwise, or nothing."""
        file = self._beside(ending)
        return stamp([file]) if file.is_file() else ()

    def content_beside(self, ending: str) -> bytes:
        """What is in that file."""
        return self._beside(ending).read_bytes()

    def _beside(self, ending: str) -> Path:
        path = Path(self.path)
        return path.with_name(f"{path.name if path.is_dir() else path.stem}.{ending}")  # a folder's name may have dots

    @abstractmethod
    def index(self) -> VideoIndex:
        """When its frames are shown.

        Raises:
            BrokenFile: it cannot be read.
        """

    @abstractmethod
    def read(self, reader: VideoReader, index: VideoIndex, frames: Sequence[int], to: Square) -> list[Tensor]:
        """Frames by number, (3, to.size, to.size) uint8 each.

        Args:
            reader: keeps files open.
            index: of this recording.
            frames: their numbers.
            to: what they become.

        Raises:
            BrokenFile: they cannot be read.
        """

    def table(self, columns: Sequence[str], index: VideoIndex) -> tuple[Path, Mapping[str, Sequence[Any]]]:
        """Columns with a value for every frame, and the file that they are from.

        Raises:
            BrokenFile: there are none, or they are not of its frames.
        """
        return read_table(Path(self.path), columns, len(index))


@lru_cache(maxsize=64)
def recording_of(place: str) -> Recording:
    """The recording that a table's `place` describes."""
    fields = json.loads(place)
    found: Recording = resolve_name(fields.pop("class"))(**fields)
    return found


@dataclass(frozen=True)
class VideoFile(Recording):
    """A video, with the table beside it."""

    def index(self) -> VideoIndex:
        """See `index_video`."""
        return index_video(self.path)

    def read(self, reader: VideoReader, index: VideoIndex, frames: Sequence[int], to: Square) -> list[Tensor]:
        """Decoded from the keyframe before each."""
        return [to(frame) for frame in reader.read(self.path, index, frames)]


@dataclass(frozen=True)
class VideoInTar(Recording):
    """A video that is a member of a tar; it is read where it lies.

    Args:
        member: its name.
        offset: of its first byte in the tar.
        size: in bytes.
        beside: offset and size of the members that share its name, by their endings.
    """

    member: str
    offset: int
    size: int
    beside: Mapping[str, Sequence[int]]

    @property
    def name(self) -> str:
        """`shard.tar/clip.mp4`."""
        return f"{self.path}/{self.member}"

    @property
    def part(self) -> str:
        """Where its bytes are."""
        return f"{self.offset}+{self.size}"

    @property
    def tar(self) -> str | InputFile:
        """What is opened."""
        return self.path

    def table_file(self) -> Path | None:
        """None, as it is in the tar."""
        return None

    def stamps_beside(self, ending: str) -> Stamps:
        """Of the tar, if a member has its name otherwise."""
        return self.stamps() if ending in self.beside else ()

    def content_beside(self, ending: str) -> bytes:
        """Bytes of that member."""
        offset, size = self.beside[ending]
        with open(self.path, "rb") as tar:
            return os.pread(tar.fileno(), size, offset)

    def index(self) -> VideoIndex:
        """See `index_video`."""
        return index_video(self.tar, (self.offset, self.size), self.name)

    def read(self, reader: VideoReader, index: VideoIndex, frames: Sequence[int], to: Square) -> list[Tensor]:
        """Decoded from the keyframe before each."""
        decoded = reader.read(self.tar, index, frames, (self.offset, self.size), self.name)
        return [to(frame) for frame in decoded]

    def table(self, columns: Sequence[str], index: VideoIndex) -> tuple[Path, Mapping[str, Sequence[Any]]]:
        """Columns of the member that has its name otherwise."""
        video = Path(self.name)
        ending = next((suffix for suffix in TABLE_SUFFIXES if suffix[1:] in self.beside), None)
        if ending is None:
            raise BrokenFile(
                self.name, f"there is no table beside it; add '{video.with_suffix('.csv').name}' to the tar"
            )
        file = video.with_suffix(ending)
        return file, parsed_columns(file, self.content_beside(ending[1:]), video.name, columns, len(index))


@dataclass(frozen=True)
class FrameFolder(Recording):
    """A folder of pictures, in the order of the last number in their names.

    Args:
        names: of the pictures.
        rate: frames a second; `names`, where the names are time stamps; or the name of a text file in the folder with
            a time stamp in seconds for each. Without it each is one second after the one before.
    """

    names: Sequence[str]
    rate: float | str | None

    def files(self) -> list[Path]:
        """The folder, whose time changes with its files, and its time stamps."""
        folder = Path(self.path)
        stamps = [folder / self.rate] if isinstance(self.rate, str) and self.rate != NAMES else []
        return [folder, *(f for f in stamps if f.is_file())]

    def index(self) -> VideoIndex:
        """From the names and the rate alone."""
        count = len(self.names)
        if isinstance(self.rate, str):
            seconds = self._seconds(self.rate)
            if len(seconds) != count:
                raise BrokenFile(
                    Path(self.path) / self.rate, f"it has {len(seconds)} time stamps for {count} frames; one each"
                )
            if not (np.diff(seconds) > 0).all():
                at = int(np.argmin(np.diff(seconds) > 0))
                raise BrokenFile(self.path, f"the time stamps do not go up from '{self.names[at]}' to the next")
            pts, tick = np.round((seconds - seconds[0]) / MICROSECOND).astype(np.int64), MICROSECOND
        else:
            pts, tick = np.arange(count, dtype=np.int64), 1 / (self.rate or 1.0)
        return VideoIndex(pts, pts, tick)

    def _seconds(self, rate: str) -> np.ndarray:
        if rate == NAMES:
            return np.array([_seconds_in(Path(self.path) / name) for name in self.names])
        file = Path(self.path) / rate
        try:
            lines = [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            return np.array([float(line) for line in lines if not line.startswith("#")])
        except (OSError, ValueError) as error:
            raise BrokenFile(file, f"a time stamp in seconds in every line is expected: {error}") from error

    def read(self, reader: VideoReader, index: VideoIndex, frames: Sequence[int], to: Square) -> list[Tensor]:
        """Each is a file of its own."""
        return [to.read(os.path.join(self.path, self.names[frame])) for frame in frames]


def _seconds_in(file: Path) -> float:
    """A time stamp that is a file's name: seconds with a dot, or a whole number of ns, µs or ms by its digits."""
    found = re.findall(NUMBER, file.stem)
    if not found:
        raise BrokenFile(file, "its name is no time stamp")
    number = found[-1]
    for digits, unit in ((18, 1e-9), (15, 1e-6), (12, 1e-3)):  # since 1970, for the next centuries
        if "." not in number and len(number) >= digits:
            return int(number) * unit
    return float(number)


def frame_folder(folder: Path, names: Sequence[str], rate: float | str | None) -> FrameFolder:
    """A folder's pictures in the order of the last number in their names.

    Raises:
        BrokenFile: a name has no number, two have the same, or their other numbers say another order.
    """
    numbered: dict[Fraction, str] = {}
    for name in names:
        found = _numbers_in(name, NUMBER)
        if not found:
            raise BrokenFile(folder / name, "its name has no number, by which frames are ordered")
        if (other := numbered.setdefault(found[-1], name)) != name:
            raise BrokenFile(folder / name, f"its number is that of '{other}', and frames are ordered by it")
    ordered = [numbered[number] for number in sorted(numbered)]
    for pattern in (NUMBER,) if rate == NAMES else (NUMBER, r"\d+"):  # 1.10 follows on 1.9, if it is no time
        for before, after in pairwise(ordered):
            if _numbers_in(before, pattern) > _numbers_in(after, pattern):
                raise BrokenFile(
                    folder / after,
                    f"by the last number of its name it follows on '{before}', by all of them it does not; give frames "
                    "names with one number",
                )
    return FrameFolder(str(folder), tuple(ordered), rate)


def _numbers_in(name: str, pattern: str) -> list[Fraction]:
    """All numbers in the name of a file, without those of its ending."""
    return [Fraction(number) for number in re.findall(pattern, name.rpartition(".")[0])]

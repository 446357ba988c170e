"""Videos on other machines, read by ranges of bytes where they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.index.input_files import find_input_files, remote_file
from data_modules.index.storage import InputFile, content_of
from data_modules.reading.decoding import VIDEO_SUFFIXES, VideoReader, index_video
from data_modules.reading.episode_tables import TABLE_SUFFIXES, parsed_columns
from data_modules.reading.files import Stamps
from data_modules.reading.pictures import Square
from data_modules.reading.recordings import Recording
from data_modules.reading.tars_of_videos import TAR, videos_in_remote_tar
from data_modules.reading.time_stamps import VideoIndex


@dataclass(frozen=True)
class RemoteVideo(Recording):
    """A video on another machine, with the table beside it.

    Args:
        size: in bytes.
        changed: see `InputFile`.
    """

    size: int
    changed: str

    @property
    def file(self) -> InputFile:
        """What is opened."""
        return InputFile(self.path, self.size, self.changed)

    @property
    def part(self) -> str:
        """All of it, in its state."""
        return f"{self.size} {self.changed}"

    def stamps(self, columns: bool = False) -> Stamps:
        """As its storage told."""
        table = self._table() if columns else None
        return tuple(_stamp(file) for file in (self.file, table) if file)

    def stamps_beside(self, ending: str) -> Stamps:
        """Of the file that has its name otherwise, or nothing."""
        found = remote_file(self._url(ending))
        return (_stamp(found),) if found else ()

    def content_beside(self, ending: str) -> bytes:
        """What is in that file."""
        try:
            return content_of(InputFile(self._url(ending), 0, ""))
        except FileNotFoundError:  # it is gone since it was looked up
            return b""

    def index(self) -> VideoIndex:
        """See `index_video`."""
        return index_video(self.file, (0, self.size))

    def read(self, reader: VideoReader, index: VideoIndex, frames: Sequence[int], to: Square) -> list[Tensor]:
        """Decoded from the keyframe before each."""
        return [to(f) for f in reader.read(self.file, index, frames, (0, self.size), self.path)]

    def table(self, columns: Sequence[str], index: VideoIndex) -> tuple[Path, Mapping[str, Sequence[Any]]]:
        """Columns of the table beside it."""
        found, video = self._table(), Path(self.path).name
        if found is None:
            raise BrokenFile(self.path, f"there is no table beside it; add '{Path(video).with_suffix('.csv')}'")
        file = Path(found.path)
        return file, parsed_columns(file, content_of(found), video, columns, len(index))

    def _table(self) -> InputFile | None:
        return next(filter(None, (remote_file(self._url(kind[1:])) for kind in TABLE_SUFFIXES)), None)

    def _url(self, ending: str) -> str:
        return f"{self.path.rpartition('.')[0]}.{ending}"


def _stamp(file: InputFile) -> tuple[str, int, str]:
    return file.path, file.size, file.changed


def remote_videos(pattern: str, key: str) -> Iterator[Recording]:
    """The videos behind a URL, those in tars included.

    Raises:
        MissingFile: nothing is there.
        BrokenFile: a tar is cut or overwritten, or its storage fails.
        Mistake: the storage cannot be reached.
    """
    for file in find_input_files(pattern, (*VIDEO_SUFFIXES, TAR), key):
        if file.path.lower().endswith(TAR):
            yield from videos_in_remote_tar(file)
        else:
            yield RemoteVideo(*_stamp(file))

"""Episodes in HDF5 files: RECON's, and those of robots (robomimic, ALOHA) with pictures as arrays or as JPEGs.

Layout of RECON: one file for each episode, with `images/rgb_left` (JPEG bytes), `jackal/position` (frames, 3) in metres
and `jackal/yaw` (frames,) in radians.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.reading.decoding import VideoReader
from data_modules.reading.episode_tables import column_of
from data_modules.reading.files import listed
from data_modules.reading.pictures import Square
from data_modules.reading.recordings import Recording
from data_modules.reading.time_stamps import VideoIndex
from lit_mm.mistake import Mistake, from_extra

if TYPE_CHECKING:
    import h5py

HDF5_SUFFIXES = (".hdf5", ".h5")
CAMERA = "images/rgb_left"
RECON = {"x": "jackal/position[0]", "y": "jackal/position[1]", "yaw": "jackal/yaw"}


@dataclass(frozen=True)
class Hdf5Recording(Recording):
    """One file, which is one episode.

    Args:
        camera: data set of the pictures, (frames, height, width, 3) uint8 or (frames,) encoded pictures; RECON's left
            camera by default. Columns are data sets too, named by their path.
        rate: frames a second; where it is not known each is one second after the one before.
    """

    camera: str | None = None
    rate: float | None = None

    @property
    def _pictures(self) -> str:
        return self.camera or CAMERA

    @property
    def part(self) -> str:
        """Which camera."""
        return self._pictures

    def table_file(self) -> Path | None:
        """Columns are in the file itself."""
        return None

    def index(self) -> VideoIndex:
        """As many frames as the camera has."""
        with _opened(self.path) as file:
            if self._pictures not in file:
                raise BrokenFile(
                    self.path, f"there is no '{self._pictures}' in it; say with `camera` which of {_names(file)} it is"
                )
            pts = np.arange(len(file[self._pictures]), dtype=np.int64)
        if not len(pts):
            raise BrokenFile(self.path, f"there is no frame in '{self._pictures}'")
        return VideoIndex(pts, pts, 1 / (self.rate or 1.0))

    def read(self, reader: VideoReader, index: VideoIndex, frames: Sequence[int], to: Square) -> list[Tensor]:
        """The file is opened for every document: an open one must not be shared with a forked process."""
        with _opened(self.path) as file:
            pictures = file[self._pictures]
            stored = [pictures[frame] for frame in frames]
        found = []
        for frame, value in zip(frames, stored, strict=True):
            if isinstance(value, np.ndarray) and value.ndim == 3:
                found.append(to(np.ascontiguousarray(value[..., :3])))
            else:
                found.append(to.read(bytes(value), f"{self.path}, {self._pictures}, frame {frame}"))
        return found

    def table(self, columns: Sequence[str], index: VideoIndex) -> tuple[Path, Mapping[str, Sequence[Any]]]:
        """Data sets by their path, or RECON's names of poses."""
        with _opened(self.path) as file:
            values: dict[str, Sequence[Any]] = {}
            for name in columns:
                path = name.partition("[")[0]
                source = path if path in file else RECON.get(name, path).partition("[")[0]
                if source not in file:
                    raise BrokenFile(self.path, f"there is no '{path}' in it; there are {_names(file)}")
                values[source] = _plain(file[source][()])
                if len(values[source]) != len(index):
                    raise BrokenFile(
                        self.path, f"'{source}' has {len(values[source])} rows for {len(index)} frames; one each"
                    )
                if source != path:
                    values[name] = column_of(values, RECON[name], Path(self.path))
        return Path(self.path), {name: column_of(values, name, Path(self.path)) for name in columns}


def _plain(values: np.ndarray) -> list[Any]:
    """Rows as Python has them; texts are decoded, and a column of one is flat."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    return [value.decode("utf-8") if isinstance(value, bytes) else value for value in values.tolist()]


@contextmanager
def _opened(path: str) -> Iterator[h5py.File]:
    with from_extra("hdf5", f"reading '{path}'"):
        import h5py
    try:
        with h5py.File(path, "r") as file:
            yield file
    except Mistake:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:  # as h5py tells of damages
        raise BrokenFile(path, f"it is no HDF5 file, or cut short: {error}") from error


def _names(file: h5py.File) -> str:
    import h5py

    found: list[str] = []
    file.visititems(lambda name, thing: found.append(name) if isinstance(thing, h5py.Dataset) else None)
    return listed(found[:20], "and") if found else "nothing"

"""The recordings that a path names, whatever their layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_modules.index.listing import Listing
from data_modules.index.storage import ask_each, is_remote
from data_modules.prompting.prompt_items import PICTURE_SUFFIXES
from data_modules.reading.decoding import VIDEO_SUFFIXES
from data_modules.reading.episode_tables import TABLE_SUFFIXES
from data_modules.reading.files import Stamps, find_files
from data_modules.reading.findings import note_files
from data_modules.reading.hdf5_recordings import HDF5_SUFFIXES, Hdf5Recording
from data_modules.reading.lerobot import is_lerobot, lerobot_episodes
from data_modules.reading.recordings import FrameFolder, Recording, VideoFile, frame_folder
from data_modules.reading.remote_videos import remote_videos
from data_modules.reading.tars_of_videos import TAR, videos_in_tar
from data_modules.reading.walking import matching, walk
from lit_mm.mistake import MissingFile, Mistake

BESIDE = (*TABLE_SUFFIXES, ".txt", ".json")  # tables and captions


@dataclass(frozen=True)
class Layout:
    """What a path does not say about the recordings behind it.

    Args:
        frame_rate: of folders of frames, see `FrameFolder`, and of HDF5 files.
        camera: of recordings with several: the feature of a LeRobot data set, the data set in an HDF5 file.

    Raises:
        Mistake: the rate is not above 0.
    """

    frame_rate: float | str | None = None
    camera: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.frame_rate, int | float) and self.frame_rate <= 0:
            raise Mistake(f"frame_rate: {self.frame_rate} frames per second is not a rate; give a number above 0")


class FoundRecordings(NamedTuple):
    """Recordings, as they were when they were looked up.

    Attributes:
        recordings: in order.
        items: of each the files that its frames and columns are in, as they were, and its `place`.
        files: that all frames are in.
    """

    recordings: list[Recording]
    items: list[tuple[Stamps, str]]
    files: Stamps


def look_up(path: str, key: str, layout: Layout, with_columns: bool, listing: Listing) -> FoundRecordings:
    """Recordings behind a path, looked up by one process of a run.

    Args:
        path: see `find_recordings`.
        key: the YAML key, for the error message.
        layout: what the path does not say.
        with_columns: whether what stands beside the frames is read.
        listing: of the run.

    Raises:
        MissingFile, BrokenFile: see `find_recordings`.
    """

    def look() -> FoundRecordings:
        found = find_recordings(path, key, layout)
        files = [recording.stamps() for recording in found]
        stamps = ask_each(lambda recording: recording.stamps(True), found, path) if with_columns else files
        items = [(one, recording.place) for one, recording in zip(stamps, found, strict=True)]
        return FoundRecordings(found, items, tuple(sorted({file for one in files for file in one})))

    return listing.look((path, layout, with_columns), look)


def find_recordings(path: str, key: str, layout: Layout) -> list[Recording]:
    """All recordings behind a path, sorted by name.

    Args:
        path: a video, a tar of videos, an HDF5 file, a folder of those or a pattern; the URL of videos and tars; a
            LeRobot data set, with the episodes meant behind a `#` (`pusht#0:180`); or a folder of pictures, a folder of
            such folders, or a pattern of them.
        key: the YAML key, for the error message.
        layout: what the path does not say.

    Raises:
        MissingFile: nothing is there, or nothing that can be read.
        BrokenFile: a tar or a data set cannot be read, or frames cannot be ordered.
    """
    if is_remote(path):
        if not (remote := list(remote_videos(path, key))):
            raise MissingFile(f"{key}: the tars of '{path}' hold no video")
        return remote
    if is_lerobot(path):
        episodes = list(lerobot_episodes(path, key, layout.camera))
        note_files(path, len({episode.path for episode in episodes}), {})
        return [*episodes]
    try:
        files = find_files(path, (*VIDEO_SUFFIXES, TAR, *HDF5_SUFFIXES), key, BESIDE)
    except MissingFile:
        folders = _folders_of_frames(path)
        if not folders:
            raise
        note_files(path, len(folders), {})
        return [frame_folder(folder, names, layout.frame_rate) for folder, names in folders]
    found: list[Recording] = []
    for file in files:
        if file.name.lower().endswith(TAR):
            found += videos_in_tar(file)
        elif file.name.lower().endswith(HDF5_SUFFIXES):
            rate = layout.frame_rate if not isinstance(layout.frame_rate, str) else None
            found.append(Hdf5Recording(str(file), layout.camera, rate))
        else:
            found.append(VideoFile(str(file)))
    if not found:
        raise MissingFile(f"{key}: the tars of '{path}' hold no video")
    return found


def need_rate(recordings: list[Recording], key: str) -> None:
    """Refuse recordings of which nobody has said when their frames were taken.

    Raises:
        Mistake: there is one.
    """
    for recording in recordings:
        if isinstance(recording, FrameFolder | Hdf5Recording) and recording.rate is None:
            raise Mistake(
                f"{key}: '{recording.path}' does not say how long its frames last; give frame_rate: frames per second, "
                "and for folders also `names` where the names of frames are time stamps, or the name of a text file "
                "with a time stamp in seconds in each line"
            )


def _folders_of_frames(path: str) -> list[tuple[Path, list[str]]]:
    """Folders that hold pictures, and their names."""
    found: dict[Path, list[str]] = {}
    for root in map(Path, matching(str(Path(path).expanduser()))):
        if root.is_dir():
            for file in walk(root, PICTURE_SUFFIXES).files:
                found.setdefault(file.parent, []).append(file.name)
    return sorted(found.items())

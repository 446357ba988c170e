"""Raw video: clips of frames at a chosen rate, without labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from data_modules.base import DocumentDataModule, Split
from data_modules.dataset import DocumentDataset, DocumentFormat, Draw
from data_modules.reading.files import find_files, settle_broken, stamp, warn
from data_modules.reading.findings import note_lost
from lit_mm.mistake import Mistake
from lit_mm.sequence import Document, Segment, Text


class VideoDataModule(DocumentDataModule):
    """Clips of video, each frame noised at its own time (paper): `<bos> <boi> f0 <eoi> <boi> f1 <eoi> ... <eos>`.

    Files: MP4, MOV, AVI, MKV, WebM, MPEG, WMV and what else FFmpeg reads, of any size, rate and rotation.

    Args:
        train: file, folder or pattern such as `data/*.mp4`.
        val: the same for validation; none by default.
        fps: frames per second of a clip, one by default (paper). Where a file's own rate is lower, frames repeat.
        frames: frames of a clip (ours: the paper does not say).
        stride: frames (at `fps`) from the start of one clip to the start of the next; `frames` by default, so that
            clips do not overlap.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        fps: float = 1.0,
        frames: int = 8,
        stride: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if fps <= 0:
            raise Mistake(f"fps: {fps} frames per second is not a rate; give a number above 0")
        if frames < 1 or (stride is not None and stride < 1):
            raise Mistake(f"frames and stride: {frames} and {stride} are not counts; give 1 or more")
        self.paths: dict[Split, str | None] = {"train": train, "val": val}
        self.fps = fps
        self.frames = frames
        self.stride = stride or frames

    def dataset(self, split: Split, source: str, format: DocumentFormat) -> VideoDataset | None:
        """Clips of one split; files are indexed once and decoded when drawn."""
        from data_modules.reading.decoding import VIDEO_SUFFIXES
        from data_modules.reading.episodes import index_files, say_far_keyframes

        path = self.paths[split]
        if path is None:
            return None
        key = f"{self.key}.{split}"
        files = find_files(path, VIDEO_SUFFIXES, key)
        table = index_files(files)
        broken = table.broken()
        skipped = settle_broken(next(iter(broken), None), len(broken), len(table), key, self.tolerance)
        say_far_keyframes(table, key)
        clips = ClipPlan(table, self.fps, self.frames, self.stride)
        if clips.short:
            few = f"{len(clips.short)} of {len(table)} videos are shorter than a clip of {self.frames} frames"
            if clips.count == 0:
                raise Mistake(
                    f"{key}: {few} at {self.fps:g} per second ('{table.path(clips.short[0])}' lasts "
                    f"{table.index(clips.short[0]).seconds[-1]:.2f} s); lower `frames` or raise `fps`"
                )
            warn("%s: %s at %g per second, and are left out", key, few, self.fps)
            note_lost("videos shorter than a clip", len(clips.short))
        dataset = VideoDataset(source, clips, format, skipped)
        dataset.files = stamp(files)
        return dataset


class ClipPlan:
    """Where clips begin, from time stamps alone. Clips are numbered through all files in order.

    Attributes:
        count: clips in all.
        short: rows of the videos that hold no clip.
    """

    def __init__(self, table: Any, fps: float, frames: int, stride: int) -> None:
        self.table, self.fps, self.frames, self.stride = table, fps, frames, stride
        self.videos = table.usable()
        counts = np.array([self._clips_of(int(row)) for row in self.videos], dtype=np.int64)
        self.short = self.videos[counts == 0].tolist()
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        self.count = int(self.starts[-1])

    def _clips_of(self, row: int) -> int:
        index = self.table.index(row)
        last = float(index.pts[-1] - index.pts[0]) * index.time_base
        grid = int(np.floor(last * self.fps + 1e-6)) + 1  # moments 0, 1/fps, 2/fps ... up to the last frame
        return max(0, (grid - self.frames) // self.stride + 1)

    def locate(self, clip: int) -> tuple[int, list[int]]:
        """Row of a clip's video, and the numbers of its frames: those shown at its moments."""
        number = int(np.searchsorted(self.starts, clip, side="right")) - 1
        row = int(self.videos[number])
        return row, self._frames_of(row, np.array([clip - int(self.starts[number])]))[0].tolist()

    def used_frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """Every video that holds a clip, by its row, with the numbers of the frames that clips show, ascending."""
        for number, row in enumerate(self.videos.tolist()):
            clips = np.arange(self.starts[number + 1] - self.starts[number])
            if len(clips):
                yield row, np.unique(self._frames_of(row, clips))

    def _frames_of(self, row: int, clips: np.ndarray) -> np.ndarray:
        """(clips, frames) numbers of the frames of some clips of one video."""
        index = self.table.index(row)
        # Half a tick of tolerance, as time stamps are rounded to the container's time base.
        moments = (clips[:, None] * self.stride + np.arange(self.frames)) / self.fps / index.time_base + 0.5
        return np.searchsorted(index.pts - index.pts[0], moments, side="right") - 1


class VideoDataset(DocumentDataset):
    """Clips in a fixed shuffled order, so that any first part (what is validated on) is from all files.

    Attributes:
        order: (documents,) int64, which clip each document is.
        skipped_at_setup: files left out because they cannot be read.
    """

    appends = False

    def __init__(self, source: str, clips: ClipPlan, format: DocumentFormat, skipped: int) -> None:
        from data_modules.reading.episodes import VideoPictures, shuffled

        self.source = source
        self.clips = clips
        self.order = shuffled(clips.count)
        self.format = format
        self.skipped_at_setup = skipped
        self.pictures = VideoPictures(clips.table, format.image_size)
        length = 2 + format.bracketed_frames(clips.frames)
        self.lengths = np.full((1, clips.count), length, dtype=np.int32)

    def document(self, draw: Draw) -> Document:
        """One clip."""
        from data_modules.reading.episodes import frame_keys

        row, frames = self.clips.locate(int(self.order[draw.index]))
        drawn = self.frames(frame_keys(row, np.array(frames)).tolist())
        t = self.format.tokenizer
        segments: list[Segment] = [Text(t.ids(t.bos_id, t.boi_id), loss=False)]
        for number, frame in enumerate(drawn):
            last = number == len(drawn) - 1
            segments += [frame, Text(t.ids(t.eoi_id, t.eos_id if last else t.boi_id))]
        return Document(tuple(segments), self.source)

    def picture_keys(self) -> np.ndarray:
        """Frames that clips show; those that overlap share theirs."""
        from data_modules.reading.episodes import frame_keys

        return np.concatenate([frame_keys(row, frames) for row, frames in self.clips.used_frames()])

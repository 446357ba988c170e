"""Video: clips of frames at a chosen rate, with or without captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data_modules.base import DocumentDataModule
from data_modules.dataset import DocumentDataset, DocumentFormat, Draw
from data_modules.index.sidecars import Indexing
from data_modules.mixing.mixture import Mixture
from data_modules.reading.cropping import CENTRE, Cropping
from data_modules.reading.files import say, settle_broken, warn
from data_modules.reading.findings import note_lost
from data_modules.reading.frame_keys import FRAME_BITS, frame_keys, shuffled
from data_modules.source import Source, Split
from lit_mm.mistake import Mistake
from lit_mm.sequence import Document, Segment, Text
from lit_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from data_modules.reading.clip_captions import ReadCaptions
    from data_modules.reading.episodes import VideoPictures
    from data_modules.reading.found_recordings import FoundRecordings
    from data_modules.reading.recordings import Recording

VARIANTS = CAPTION_FIRST, UNCONDITIONAL, VIDEO_FIRST = ("caption_first", "unconditional", "video_first")


class VideoSource(Source):
    """Clips of video, each frame noised at its own time (paper): `<bos> <boi> f0 <eoi> <boi> f1 <eoi> ... <eos>`.

    Files: MP4, MOV, AVI, MKV, WebM, MPEG, WMV and what else FFmpeg reads, of any size, rate and rotation; tars of them,
    all of which may lie on other machines (`s3://bucket/{000..127}.tar`); folders of frames; HDF5 files; LeRobot data
    sets.

    Where videos have captions, a clip follows its caption, or is read and followed by it (ours: the paper's videos have
    none).

    Args:
        train: file, folder or pattern such as `data/*.mp4`, `clips/*.tar`, `frames/*/`, or `pusht#0:180`, episodes of a
            LeRobot data set.
        val: the same for validation; none by default.
        fps: frames per second of a clip, one by default (paper). Where a file's own rate is lower, frames repeat.
        frames: frames of a clip (ours: the paper does not say).
        stride: frames (at `fps`) from the start of one clip to the start of the next; `frames` by default, so that
            clips do not overlap.
        frame_rate: of folders of frames: frames a second, `names` where names are time stamps (seconds with a dot, or
            ns, µs or ms since 1970), or the name of a text file in each folder with a time stamp in seconds a line.
        camera: of recordings with several, such as `observation.images.top`, or the data set in an HDF5 file.
        crop: how frames become squares, by a rule other than `random` (see `data_modules.reading.cropping.Cropping`);
            their centres by default.
        captions: an ending such as `txt` or `json.caption` of files beside the videos (in tars, of members); or the
            path of a table (CSV, TSV, JSON, JSON Lines, Parquet). None by default.
        name_column: of a table of captions, what names the video: its file's name, with or without ending, or path.
        caption_column: of a table of captions, the caption.
        caption_first: share of draws with the caption before the clip, in [0, 1]; in the rest it is behind.
        condition_dropout: share of the caption-first draws that lose their caption, which guidance needs (paper).
        max_caption: longer captions are cut to so many tokens.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        fps: float = 1.0,
        frames: int = 8,
        stride: int | None = None,
        frame_rate: float | str | None = None,
        camera: str | None = None,
        crop: Cropping = CENTRE,
        captions: str | None = None,
        name_column: str = "video",
        caption_column: str = "caption",
        caption_first: float = 0.8,
        condition_dropout: float = 0.1,
        max_caption: int = 128,
    ) -> None:
        super().__init__()
        if fps <= 0:
            raise Mistake(f"fps: {fps} frames per second is not a rate; give a number above 0")
        if frames < 1 or (stride is not None and stride < 1):
            raise Mistake(f"frames and stride: {frames} and {stride} are not counts; give 1 or more")
        for name, share in {"caption_first": caption_first, "condition_dropout": condition_dropout}.items():
            if not 0 <= share <= 1:
                raise Mistake(f"{name}: {share} is not a share; give a number from 0 to 1")
        if max_caption < 1:
            raise Mistake(f"max_caption: {max_caption} tokens; give 1 or more")
        self.paths: dict[Split, str | None] = {"train": train, "val": val}
        self.fps, self.frames, self.stride = fps, frames, stride or frames
        self.frame_rate, self.camera, self.crop = frame_rate, camera, crop.fixed()
        self.captions, self.max_caption = captions, max_caption
        self.name_column, self.caption_column = name_column, caption_column
        dropped = caption_first * condition_dropout
        self.shares = (caption_first - dropped, dropped, 1 - caption_first) if captions else (1.0,)

    def dataset(self, split: Split, source: str, format: DocumentFormat) -> VideoDataset | None:
        """Clips of one split; files are indexed once and decoded when drawn."""
        from data_modules.reading.episodes import VideoPictures, index_recordings, say_far_keyframes
        from data_modules.reading.found_recordings import need_rate
        from data_modules.reading.picture_identity import root_of
        from data_modules.reading.pictures import Square

        path = self.paths[split]
        if path is None:
            return None
        key = f"{self.key}.{split}"
        found = self._found(path, key)
        need_rate(found.recordings, key)
        table = index_recordings(found, self.cache, key)
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
        captions, unread = self._read_captions(found.recordings, format, key)
        pictures = VideoPictures(table, Square(format.image_size, self.crop.still), self.range_cache)
        dataset = VideoDataset(source, clips, pictures, format, skipped + unread, captions, self.shares)
        pictures.root = root_of(path)
        dataset.files = found.files
        return dataset

    def _found(self, path: str, key: str) -> FoundRecordings:
        from data_modules.reading.found_recordings import Layout, look_up

        return look_up(path, key, Layout(self.frame_rate, self.camera), False, self.listing)

    def indexing(self, split: Split, tokenizer: Tokenizer) -> Indexing | None:
        """The indexes of one split's videos, and what makes them."""
        from data_modules.index.recording_index import recording_sidecars
        from data_modules.reading.recording_columns import Columns

        path = self.paths[split]
        if path is None:
            return None
        found = self._found(path, f"{self.key}.{split}")
        return recording_sidecars(found.items, found.recordings, Columns(), self.cache)

    def _read_captions(
        self, recordings: Sequence[Recording], format: DocumentFormat, key: str
    ) -> tuple[ReadCaptions | None, int]:
        from data_modules.reading.clip_captions import Captions, read_captions

        if self.captions is None:
            return None, 0
        where = Captions(self.captions, self.name_column, self.caption_column)
        found = read_captions(recordings, where, format.tokenizer, self.max_caption, key, self.listing)
        broken = found.broken
        skipped = settle_broken(next(iter(broken), None), len(broken), len(recordings), key, self.tolerance)
        without = int(np.count_nonzero(found.ids.lengths() == 0))
        if without == len(recordings):
            example = recordings[0].name
            raise Mistake(
                f"{key}: captions is '{self.captions}', but none of {without} videos ('{example}') has one there"
            )
        if without:
            warn("%s: %d of %d videos have no caption and are shown without one", key, without, len(recordings))
        if cut := int(np.count_nonzero(found.cut)):
            say("%s: %d of %d captions are cut to %d tokens (max_caption)", key, cut, len(recordings), self.max_caption)
        return found, skipped


class VideoDataModule(DocumentDataModule):
    """Clips of video alone, see `VideoSource`."""

    def mix(self, **mixed: Any) -> Mixture:
        """The source, of these arguments."""
        return Mixture.of_one(VideoSource(**mixed))


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

    def rows(self, clips: np.ndarray) -> np.ndarray:
        """Rows (clips,) of the videos of some clips."""
        return self.videos[np.searchsorted(self.starts, clips, side="right") - 1]

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

    Args:
        source: name of the source.
        clips: where they are.
        pictures: their frames.
        format: of documents.
        skipped: see `skipped_at_setup`.
        captions: of each recording, by its row; none where clips have none.
        shares: of `variants`.

    Attributes:
        variants: names of the variants, in the order of `lengths`; clips without captions have the second alone.
        order: (documents,) int64, which clip each document is.
        skipped_at_setup: files left out because they cannot be read.
    """

    appends = False

    def __init__(
        self,
        source: str,
        clips: ClipPlan,
        pictures: VideoPictures,
        format: DocumentFormat,
        skipped: int,
        captions: ReadCaptions | None = None,
        shares: tuple[float, ...] = (1.0,),
    ) -> None:
        self.source = source
        self.clips = clips
        self.order = shuffled(clips.count)
        self.format = format
        self.skipped_at_setup = skipped
        self.pictures = pictures
        self.captions, self.shares = captions.ids if captions else None, shares
        self.variants = VARIANTS if captions else VARIANTS[1:2]
        bare = np.full(clips.count, 2 + format.bracketed_frames(clips.frames), dtype=np.int32)
        caption = captions.ids.lengths()[clips.rows(self.order)] if captions else 0
        self.captions_cut = int(np.count_nonzero(captions.cut[clips.rows(self.order)])) if captions else 0
        self.lengths = np.stack([bare + (0 if variant == UNCONDITIONAL else caption) for variant in self.variants])

    def document(self, draw: Draw) -> Document:
        """One clip, in the variant that is drawn; one without a caption is unconditional in each."""
        keys = self.keys_of(draw)
        caption: list[int] = self.captions[keys[0] >> FRAME_BITS] if self.captions is not None else []
        variant = self.variants[draw.variant] if caption else UNCONDITIONAL
        read = variant == VIDEO_FIRST
        drawn = self.frames(keys, clean=len(keys) if read else 0)
        t = self.format.tokenizer
        before = variant == CAPTION_FIRST
        opening = torch.tensor([t.bos_id, *(caption if before else []), t.boi_id])
        segments: list[Segment] = [Text(opening, loss=before)]
        for frame in drawn[:-1]:
            segments += [frame, Text(t.ids(t.eoi_id, t.boi_id), loss=not read)]
        closing = torch.tensor([t.eoi_id, *(caption if read else []), t.eos_id])
        return Document((*segments, drawn[-1], Text(closing)), self.source)

    def keys_of(self, draw: Draw) -> list[int]:
        """Of the frames of the clip."""
        row, frames = self.clips.locate(int(self.order[draw.index]))
        return frame_keys(row, np.array(frames)).tolist()

    def picture_keys(self) -> np.ndarray:
        """Frames that clips show; those that overlap share theirs."""
        return np.concatenate([frame_keys(row, frames) for row, frames in self.clips.used_frames()])

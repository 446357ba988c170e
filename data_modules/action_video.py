"""Video with actions: context frames, what the agent does, and the frame it then sees."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from data_modules.action_dataset import ActionVideoDataset
from data_modules.base import DocumentDataModule
from data_modules.dataset import DocumentFormat
from data_modules.index.sidecars import Indexing
from data_modules.mixing.mixture import Mixture
from data_modules.reading.action_template import OF_STATES, ActionTemplate
from data_modules.reading.actions import Actions
from data_modules.reading.cropping import CENTRE, Cropping
from data_modules.reading.files import settle_broken, warn
from data_modules.reading.findings import note_lost
from data_modules.source import Source, Split
from lit_mm.mistake import Mistake
from lit_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    import datasets

    from data_modules.reading.action_documents import DocumentPlan
    from data_modules.reading.episodes import VideoTable
    from data_modules.reading.found_recordings import FoundRecordings
    from data_modules.reading.recording_columns import Columns


class ActionVideoSource(Source):
    """Episodes with actions: `<bos> <boi> c0 <eoi> ... <boi> c3 <eoi> action text <boi> target <eoi> <eos>`.

    All targets of a context share it: from the `<eoi>` of its last frame on they are branches of one document, which
    see the context and nothing of each other (see `lit_mm.sequence.Document`). To the model each is as if it stood
    alone, at little more than half the tokens with four of them.

    Files: `<episode>.mp4` (or another video format), or a folder of frames, and beside it `<episode>.csv` (or .parquet,
    .jsonl) with one row per frame; a column `frame` orders the rows. Tars of both, HDF5 files and LeRobot data sets.
    Columns are those that `actions`, `words` and `text` name, and no others are read here.

    The action is text, `action: dx=+1.338, dy=-0.659, dyaw=+0.123, rel_t=+0.125`: dx forward and dy to the left, dyaw
    to the left in radians, rel_t the share of the horizon. It is read and never predicted. Where it stands is ours: the
    paper does not say.

    Args:
        train: file, folder or pattern of the videos; a LeRobot data set, with the episodes meant behind a `#`
            (`pusht#0:180`).
        val: the same for validation; none by default.
        actions: `moves` (paper): the move from the last context frame to the target, as seen from the former, dx and dy
            in multiples of `unit` and dyaw in [-pi, pi). The tables have the columns x, y (position on the map) and
            angle (heading in degrees, counter-clockwise from the x axis) or yaw (the same in radians).
            `told`: what the agent was told to do, which a wall may have kept it from. The tables have the columns dx,
            dy and dyaw, told from this frame to the next, which are summed up to the target and written as they are.
            The last row may lack them.
        text: how actions are written instead, with columns of any name: `action: grip={gripper:+.2f}, {keys}`; see
            `data_modules.reading.action_template.ActionTemplate`. `{dx}`, `{dy}` and `{dyaw}` are what `actions` says.
        columns: what x, y, angle and others are called in the tables, such as `{x: observation.state[0]}`.
        words: share of draws whose actions are written in words in place of numbers, `action: move left` (ours). The
            tables have a column `words`, what was told from this frame to the next; those up to the target are joined,
            `action: move left, then wait`. Sentences of prompts are written alike. 0, the default, trains on none, and
            is the paper's case.
        unit: map units that count as 1.0 of dx and dy, of `moves` alone. The mean distance of one step is a good
            choice; 1.0 keeps metres as metres. Prompts have to use the same unit.
        context: frames that are read before the action, four by default (paper).
        contexts: that share a document (ours). Each is a frame longer than the one before it, whose frames it begins
            with, so each frame is read once for all of them. To the model each target is still as if it stood alone.
        frame_step: video frames from one frame to the next; it sets the rate at which the model sees the world.
        fps: sets that rate in frames per second instead, by time stamps: those that are shown at 0, 1/fps, 2/fps …
        horizon: the target lies 1 to `horizon` steps after the last context frame.
        horizon_seconds: says in seconds how far that is, where `fps` is given.
        back: targets lie also 1 to `back` steps before the last context frame, as in Navigation World Models, where
            both are 64; rel_t is then negative.
        targets: different targets drawn for each context, as in Navigation World Models (ours: the paper does not say);
            near the end of an episode there are fewer.
        action_dropout: share of draws that lose the action text, which guidance needs; a tenth (paper), of which the
            context stays (ours: the paper does not say).
        frame_rate: of folders of frames, see `VideoDataModule`; needed with `fps` alone.
        camera: of recordings with several, see `VideoDataModule`.
        crop: how frames become squares, see `VideoDataModule`; `four_thirds` in Navigation World Models.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        actions: Actions = "moves",
        text: str | None = None,
        columns: dict[str, str] | None = None,
        words: float = 0.0,
        unit: float = 1.0,
        context: int = 4,
        contexts: int = 1,
        frame_step: int = 1,
        fps: float | None = None,
        horizon: int = 8,
        horizon_seconds: float | None = None,
        back: int = 0,
        targets: int = 4,
        action_dropout: float = 0.1,
        frame_rate: float | str | None = None,
        camera: str | None = None,
        crop: Cropping = CENTRE,
    ) -> None:
        super().__init__()
        counts = {"context": context, "contexts": contexts, "frame_step": frame_step}
        for name, count in {**counts, "horizon": horizon, "targets": targets}.items():
            if count < 1:
                raise Mistake(f"{name}: {count} is too few; give 1 or more")
        for name, share in {"words": words, "action_dropout": action_dropout}.items():
            if not 0 <= share <= 1:
                raise Mistake(f"{name}: {share} is not a share; give a number from 0 to 1")
        if words + action_dropout > 1:
            raise Mistake(f"words: {words} and action_dropout: {action_dropout} are more than 1 together; lower one")
        if unit <= 0:
            raise Mistake(f"unit: {unit} is not a length; give map units above 0")
        if actions == "told" and unit != 1:
            raise Mistake(f"unit: {unit} is for actions: moves; what was told is written as it is, so leave it out")
        self.paths: dict[Split, str | None] = {"train": train, "val": val}
        self.actions, self.text, self.words, self.unit = actions, text, words, unit
        self.renamed = columns or {}
        self.context, self.contexts, self.frame_step = context, contexts, frame_step
        self.fps, self.horizon = fps, steps_ahead(fps, frame_step, horizon, horizon_seconds)
        self.back, self.targets = back, targets
        self.action_dropout = action_dropout
        self.frame_rate, self.camera, self.crop = frame_rate, camera, crop.fixed()
        self._check_text()

    def _check_text(self) -> None:
        from data_modules.reading.episodes import RESERVED

        template = ActionTemplate(self.text) if self.text is not None else None
        fields = template.fields if template else []
        if reserved := [field.column for field in fields if field.column in RESERVED]:
            raise Mistake(f"text: a column cannot be called '{reserved[0]}' here; give it another name with `columns`")
        if self.back < 0:
            raise Mistake(f"back: {self.back} is not a count; give 0 or more steps")
        of_steps = [field.column for field in fields if field.how not in OF_STATES]
        if self.back and (self.words or of_steps or (self.actions == "told" and (not template or template.has_moves))):
            what = f"{{{of_steps[0]}}}" if of_steps else "words" if self.words else "actions: told"
            raise Mistake(
                f"back: {self.back} steps back, but {what} says what was done in steps ahead; write moves, or states "
                "such as {gripper.there:+.2f}"
            )

    @property
    def plan(self) -> DocumentPlan:
        """Which documents episodes become."""
        from data_modules.reading.action_documents import DocumentPlan

        taken = ("actions", "text", "context", "contexts", "frame_step", "fps", "horizon", "back", "targets", "unit")
        return DocumentPlan(words=self.words > 0, **{name: getattr(self, name) for name in taken})

    def dataset(self, split: Split, source: str, format: DocumentFormat) -> ActionVideoDataset | None:
        """Contexts and targets of one split; action texts are written and tokenized once."""
        from data_modules.reading.episodes import VideoPictures
        from data_modules.reading.picture_identity import root_of
        from data_modules.reading.pictures import Square

        path = self.paths[split]
        if path is None:
            return None
        key = f"{self.key}.{split}"
        found = self._found(path, key)
        table, skipped = self._episodes(found, key)
        documents = self._documents(table, format.tokenizer, key)
        shares = self.action_dropout, self.words
        pictures = VideoPictures(table, Square(format.image_size, self.crop.still), self.range_cache)
        dataset = ActionVideoDataset(source, self.plan, shares, table, documents, pictures, format, skipped)
        pictures.root = root_of(path)
        dataset.files = found.files
        return dataset

    def _found(self, path: str, key: str) -> FoundRecordings:
        from data_modules.reading.found_recordings import Layout, look_up

        return look_up(path, key, Layout(self.frame_rate, self.camera), True, self.listing)

    @property
    def _columns(self) -> Columns:
        return replace(self.plan.columns, renamed=tuple(self.renamed.items()))

    def indexing(self, split: Split, tokenizer: Tokenizer) -> Indexing | None:
        """The indexes of one split's episodes, and what makes them."""
        from data_modules.index.recording_index import recording_sidecars

        path = self.paths[split]
        if path is None:
            return None
        found = self._found(path, f"{self.key}.{split}")
        return recording_sidecars(found.items, found.recordings, self._columns, self.cache)

    def _episodes(self, found: FoundRecordings, key: str) -> tuple[VideoTable, int]:
        """The table of all recordings, and how many cannot be read."""
        from data_modules.reading.episodes import index_recordings, say_far_keyframes
        from data_modules.reading.found_recordings import need_rate

        if self.fps is not None:
            need_rate(found.recordings, key)
        table = index_recordings(found, self.cache, key, self._columns)
        broken = table.broken()
        skipped = settle_broken(next(iter(broken), None), len(broken), len(table), key, self.tolerance)
        say_far_keyframes(table, key)
        return table, skipped

    def _documents(self, table: VideoTable, tokenizer: Tokenizer, key: str) -> datasets.Dataset:
        from datasets import Features, List, Value

        from data_modules.reading.action_documents import frames_seen, plan_documents
        from data_modules.reading.cached import mapped

        usable = table.usable()
        needed = (self.context + self.contexts - 1) * self.frame_step + 1
        short = [int(row) for row in usable if len(frames_seen(table.index(int(row)), self.fps)) < needed]
        if short:
            few = f"{len(short)} of {len(table)} episodes are shorter than context and target, {needed} frames"
            if len(short) == len(usable):
                raise Mistake(f"{key}: {few} (as '{table.path(short[0])}'); lower `context` or `frame_step`")
            warn("%s: %s, and are left out", key, few)
            note_lost("episodes shorter than context and target", len(short))
        number = Value("int32")
        texts = {name: List(List(number)) for name in ("ids", *(["words"] if self.words else []))}
        return mapped(
            table.rows,
            plan_documents,
            {"tokenizer": tokenizer, "plan": self.plan},
            Features({"row": number, "anchor": number, "of": List(number), "ahead": List(number), **texts}),
            f"{key}: writing actions",
            batch_size=16,
            with_indices=True,
        )


class ActionVideoDataModule(DocumentDataModule):
    """Video with actions alone, see `ActionVideoSource`."""

    def mix(self, **mixed: Any) -> Mixture:
        """The source, of these arguments."""
        return Mixture.of_one(ActionVideoSource(**mixed))


def steps_ahead(fps: float | None, frame_step: int, horizon: int, seconds: float | None) -> int:
    """Steps of the longest prediction.

    Raises:
        Mistake: seconds are given and no rate, a rate and steps of frames, or numbers that are not above 0.
    """
    if fps is not None and fps <= 0:
        raise Mistake(f"fps: {fps} frames per second is not a rate; give a number above 0")
    if fps is not None and frame_step != 1:
        raise Mistake(f"fps: {fps} and frame_step: {frame_step} both say how far frames are apart; leave one out")
    if seconds is None:
        return horizon
    if fps is None:
        raise Mistake(f"horizon_seconds: {seconds} needs `fps`, the frames per second that the model sees")
    if round(seconds * fps) < 1:
        raise Mistake(f"horizon_seconds: {seconds} is less than a step at {fps:g} frames per second; raise one")
    return round(seconds * fps)

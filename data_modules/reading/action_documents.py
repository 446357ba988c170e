"""All documents of episodes with actions: which frames they show, and what is written between them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from data_modules.mixing.permutation import mix
from data_modules.reading.action_template import ActionTemplate
from data_modules.reading.actions import Actions, Pose, displacement, format_action, sentence_text
from data_modules.reading.episodes import COMMAND, OF_STEPS, POSE, WORDS
from data_modules.reading.recording_columns import Columns
from data_modules.reading.time_stamps import VideoIndex
from lit_mm.tokenizer import Tokenizer

COLUMNS: dict[Actions, tuple[str, ...]] = {"moves": POSE, "told": COMMAND}


@dataclass(frozen=True)
class DocumentPlan:
    """Which documents episodes become; the fields mean what they mean in `ActionVideoDataModule`."""

    actions: Actions
    words: bool
    text: str | None
    context: int
    contexts: int
    frame_step: int
    fps: float | None
    horizon: int
    back: int
    targets: int
    unit: float

    @property
    def template(self) -> ActionTemplate | None:
        """What actions are written by, if not as `action_text` does."""
        return ActionTemplate(self.text) if self.text is not None else None

    @property
    def columns(self) -> Columns:
        """What is read of every frame."""
        template = self.template
        moves = COLUMNS[self.actions] if template is None or template.has_moves else ()
        fields = template.fields if template else []
        numbers = dict.fromkeys([*moves, *(field.column for field in fields if not field.is_text)])
        texts = dict.fromkeys([*(field.column for field in fields if field.is_text), *([WORDS] if self.words else [])])
        return Columns(tuple(numbers), tuple(texts), (*OF_STEPS, *(template.of_steps() if template else ())))


def frames_seen(index: VideoIndex, fps: float | None) -> np.ndarray:
    """Numbers of the frames that the model may see: all of them, or those shown at moments 0, 1/fps, 2/fps …"""
    if fps is None:
        return np.arange(len(index))
    grid = np.arange(int(np.floor(index.seconds[-1] * fps + 1e-6)) + 1)
    # Half a tick of tolerance, as time stamps are rounded to the container's time base.
    return np.searchsorted(index.pts - index.pts[0], grid / fps / index.time_base + 0.5, side="right") - 1


def plan_documents(
    batch: dict[str, list], rows: list[int], tokenizer: Tokenizer, plan: DocumentPlan
) -> dict[str, list]:
    """All documents of some episodes: row of the episode, last frame of the first context, and of each target its
    context's number, the steps from there, and its action. Frames are counted among those that are seen.

    `ids` are the tokens of each target's action in numbers, `words` of the same in words.
    """
    out: dict[str, list] = {"row": [], "anchor": [], "of": [], "ahead": []}
    numbers: list[str] = []
    sentences: list[str] = []
    for number, row in enumerate(rows):
        index = VideoIndex(np.array(batch["pts"][number], np.int64), np.zeros(0, np.int64), batch["time_base"][number])
        seen = frames_seen(index, plan.fps) if len(index) else np.zeros(0, np.int64)
        anchors, ahead = choose_targets(len(seen), batch["path"][number], plan)
        spans = list(pairwise([*np.flatnonzero(np.diff(anchors, prepend=-1)), len(ahead)]))  # of each anchor
        write = episode_writer({name: values[number] for name, values in batch.items()}, index, plan)
        for first in range(len(spans) - (plan.contexts - 1) * plan.frame_step):
            chosen = [(of, i) for of in range(plan.contexts) for i in range(*spans[first + of * plan.frame_step])]
            out["row"].append(row)
            out["anchor"].append(int(anchors[spans[first][0]]))
            out["of"].append([of for of, _ in chosen])
            out["ahead"].append([int(ahead[i]) for _, i in chosen])
            for start, steps in ((int(anchors[i]), int(ahead[i])) for _, i in chosen):
                shown = int(seen[start]), int(seen[start + steps * plan.frame_step])
                numbers.append(write(*shown, steps))
                if plan.words:
                    sentences.append(sentence_text(batch[WORDS][number][slice(*shown)]))
    for name, texts in (("ids", numbers), *([("words", sentences)] if plan.words else [])):
        different = list(dict.fromkeys(texts))
        ids = dict(zip(different, tokenizer.encode_batch(different), strict=True))
        remaining = iter(texts)
        out[name] = [[ids[next(remaining)] for _ in steps] for steps in out["ahead"]]
    return out


def episode_writer(episode: dict[str, Any], index: VideoIndex, plan: DocumentPlan) -> Callable[[int, int, int], str]:
    """Writes an action from the numbers of two frames and the steps between them.

    Args:
        episode: the columns of the plan.
        index: of its frames.
        plan: how actions are written.
    """
    template = plan.template
    if template is None:
        columns = [episode[name] for name in COLUMNS[plan.actions]]
        written = told(columns) if plan.actions == "told" else moved(columns, plan.unit)
        return lambda start, stop, steps: written(start, stop, steps / plan.horizon)
    deltas = None
    if template.has_moves:
        columns = [episode[name] for name in COLUMNS[plan.actions]]
        deltas = told_deltas(columns) if plan.actions == "told" else moved_deltas(columns, plan.unit)

    def write(start: int, stop: int, steps: int) -> str:
        seconds = float(index.seconds[stop] - index.seconds[start])
        others: dict[str, float | int] = {"rel_t": steps / plan.horizon, "seconds": seconds, "steps": steps}
        if deltas is not None:
            others |= zip(("dx", "dy", "dyaw"), deltas(start, stop), strict=True)
        return template.write(episode, start, stop, others)

    return write


Deltas = Callable[[int, int], tuple[float, float, float]]


def moved_deltas(columns: Sequence[Sequence[float]], unit: float) -> Deltas:
    """How the pose at one frame differs from that at another, from columns x, y and angle, in multiples of `unit`."""
    poses = [Pose(*pose) for pose in zip(*columns, strict=True)]

    def deltas(start: int, stop: int) -> tuple[float, float, float]:
        dx, dy, dyaw = displacement(poses[start], poses[stop])
        return dx / unit, dy / unit, dyaw

    return deltas


def told_deltas(columns: Sequence[Sequence[float]]) -> Deltas:
    """The sum of what was told from one frame to another, from columns dx, dy and dyaw."""
    sums = np.cumsum(np.pad(np.array(columns), ((0, 0), (1, 0))), axis=1)

    def deltas(start: int, stop: int) -> tuple[float, float, float]:
        dx, dy, dyaw = (sums[:, stop] - sums[:, start]).tolist()
        return dx, dy, dyaw

    return deltas


def moved(columns: Sequence[Sequence[float]], unit: float) -> Callable[[int, int, float], str]:
    """Writes how the pose at one frame differs from that at another, from columns x, y and angle and `rel_t`."""
    deltas = moved_deltas(columns, unit)
    return lambda start, stop, rel_t: format_action(*deltas(start, stop), rel_t)


def told(columns: Sequence[Sequence[float]]) -> Callable[[int, int, float], str]:
    """Writes the sum of what was told from one frame to another, from columns dx, dy and dyaw and `rel_t`."""
    deltas = told_deltas(columns)
    return lambda start, stop, rel_t: format_action(*deltas(start, stop), rel_t)


def choose_targets(frames: int, path: str, plan: DocumentPlan) -> tuple[np.ndarray, np.ndarray]:
    """Last context frames and steps to their targets, (documents,) each.

    Every frame with a full context and a next frame is an anchor. Its targets are different and spread evenly over
    1 to `horizon` and, where it looks back, -1 to `-back`; they follow from the episode's name and the anchor, so the
    set of documents is the same in every run. Near the ends of an episode there are fewer.
    """
    step = plan.frame_step
    anchors = np.arange((plan.context - 1) * step, frames - step, dtype=np.int64)
    steps = np.array([*range(1, plan.horizon + 1), *range(-1, -plan.back - 1, -1)])
    name = zlib.crc32(path.replace("\\", "/").rpartition("/")[2].encode())
    numbers = anchors[:, None] * (len(steps) + 1) + np.arange(1, len(steps) + 1)
    order = mix(numbers.astype(np.uint64) + (np.uint64(name) << np.uint64(32)), 0)
    there = anchors[:, None] + steps * step
    order[(there >= frames) | (there < 0)] = np.iinfo(np.uint64).max
    chosen = np.argsort(order, axis=1, kind="stable")[:, : plan.targets]
    ahead = np.sort(steps[chosen], axis=1)
    there = anchors[:, None] + ahead * step
    inside = (there < frames) & (there >= 0)
    return np.broadcast_to(anchors[:, None], ahead.shape)[inside], ahead[inside]

"""All documents of episodes with actions: which frames they show, and what is written between them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from data_modules.reading.actions import Actions, Pose, action_text, format_action, sentence_text
from data_modules.reading.episodes import COMMAND, POSE, WORDS
from lit_mm.tokenizer import Tokenizer

COLUMNS: dict[Actions, tuple[str, ...]] = {"moves": POSE, "told": COMMAND}


def plan_documents(
    batch: dict[str, list],
    rows: list[int],
    tokenizer: Tokenizer,
    actions: Actions,
    words: bool,
    context: int,
    contexts: int,
    frame_step: int,
    horizon: int,
    targets: int,
    unit: float,
) -> dict[str, list]:
    """All documents of some episodes: row of the episode, last frame of the first context, and of each target its
    context's number, the steps from there, and its action.

    `ids` are the tokens of each target's action in numbers, `words` of the same in words.
    """
    out: dict[str, list] = {"row": [], "anchor": [], "of": [], "ahead": []}
    numbers: list[str] = []
    sentences: list[str] = []
    for number, row in enumerate(rows):
        columns = [batch[name][number] for name in COLUMNS[actions]]
        anchors, ahead = choose_targets(len(columns[0]), batch["path"][number], context, frame_step, horizon, targets)
        spans = list(pairwise([*np.flatnonzero(np.diff(anchors, prepend=-1)), len(ahead)]))  # of each anchor
        written = told(columns) if actions == "told" else moved(columns, unit)
        for first in range(len(spans) - (contexts - 1) * frame_step):
            chosen = [(of, i) for of in range(contexts) for i in range(*spans[first + of * frame_step])]
            out["row"].append(row)
            out["anchor"].append(int(anchors[spans[first][0]]))
            out["of"].append([of for of, _ in chosen])
            out["ahead"].append([int(ahead[i]) for _, i in chosen])
            for start, steps in ((int(anchors[i]), int(ahead[i])) for _, i in chosen):
                stop = start + steps * frame_step
                numbers.append(written(start, stop, steps / horizon))
                if words:
                    sentences.append(sentence_text(batch[WORDS][number][start:stop]))
    for name, texts in (("ids", numbers), *([("words", sentences)] if words else [])):
        different = list(dict.fromkeys(texts))
        ids = dict(zip(different, tokenizer.encode_batch(different), strict=True))
        remaining = iter(texts)
        out[name] = [[ids[next(remaining)] for _ in steps] for steps in out["ahead"]]
    return out


def moved(columns: Sequence[Sequence[float]], unit: float) -> Callable[[int, int, float], str]:
    """Writes how the pose at one frame differs from that at another, from columns x, y and angle and `rel_t`."""
    poses = [Pose(*pose) for pose in zip(*columns, strict=True)]
    return lambda start, stop, rel_t: action_text(poses[start], poses[stop], rel_t, unit)


def told(columns: Sequence[Sequence[float]]) -> Callable[[int, int, float], str]:
    """Writes the sum of what was told from one frame to another, from columns dx, dy and dyaw and `rel_t`."""
    sums = np.cumsum(np.pad(np.array(columns), ((0, 0), (1, 0))), axis=1)

    def written(start: int, stop: int, rel_t: float) -> str:
        dx, dy, dyaw = (sums[:, stop] - sums[:, start]).tolist()
        return format_action(dx, dy, dyaw, rel_t)

    return written


def choose_targets(
    frames: int, path: str, context: int, frame_step: int, horizon: int, targets: int
) -> tuple[np.ndarray, np.ndarray]:
    """Last context frames and steps to their targets, (documents,) each.

    Every frame with a full context and a next frame is an anchor. Its targets are different and spread evenly over
    1 to `horizon`; they follow from the episode's name and the anchor, so the set of documents is the same in every
    run. Near the end of an episode there are fewer.
    """
    anchors = np.arange((context - 1) * frame_step, frames - frame_step, dtype=np.int64)
    steps = np.arange(1, horizon + 1)
    name = zlib.crc32(path.replace("\\", "/").rpartition("/")[2].encode())
    order = _scrambled(np.uint64(name) << np.uint64(32), anchors[:, None] * (horizon + 1) + steps)
    order[anchors[:, None] + steps * frame_step >= frames] = np.iinfo(np.uint64).max
    chosen = np.argsort(order, axis=1, kind="stable")[:, :targets]
    ahead = np.sort(steps[chosen], axis=1)
    inside = anchors[:, None] + ahead * frame_step < frames
    return np.broadcast_to(anchors[:, None], ahead.shape)[inside], ahead[inside]


def _scrambled(key: np.uint64, numbers: np.ndarray) -> np.ndarray:
    """SplitMix64's output function of `key` + `numbers` (Steele et al. 2014): evenly spread uint64, array in, out."""
    z = (numbers.astype(np.uint64) + key) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))

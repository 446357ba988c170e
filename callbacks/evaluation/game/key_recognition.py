"""Which key was pressed between two frames, by how well the model draws the second one under each key's action."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.evaluation.final_evaluation import FinalEvaluation, unused
from data_modules.action_video import ActionVideoDataset, ActionVideoSource
from data_modules.dataset import BrokenFile, DocumentDataset, Draw
from data_modules.reading.actions import Pose, action_text, displacement
from data_modules.reading.episode_tables import read_table
from data_modules.reading.episodes import POSE, VideoTable
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.request import Prefix
from lit_mm.generation.rows import CachedRows
from lit_mm.mistake import Mistake
from lit_mm.sequence import Frame, Text
from lit_mm.training.run_folder import run_folder

KEYS = ("W", "S", "A", "D", "LEFT", "RIGHT")
SUBSETS = {"": KEYS, "_moves": KEYS[:4], "_turns": KEYS[4:]}
TIMESTEPS = 8  # of the validation grid, once through
COLUMN = "keys"  # of an episode's table: those held from a frame to the next

logger = logging.getLogger(__name__)


class Case(NamedTuple):
    """A target of a validation document up to which one key was held.

    Attributes:
        document: its number.
        target: number of the target among the document's, from 0.
        ahead: steps to the target.
        key: index of the key in KEYS.
    """

    document: int
    target: int
    ahead: int
    key: int


class KeyRecognition(FinalEvaluation):
    """A diffusion classifier (Li et al. 2023, arXiv 2303.16203) of the keys W, S, A, D, LEFT and RIGHT.

    For every validation source of video with actions whose tables have a column `keys`: the model never writes an
    action, so it is asked how well the target frame is drawn under each key's action. That action is the mean
    displacement of the key in training, and the answer is the key with the lowest flow loss over the timesteps of
    validation, with the same noise for all keys. Cases are targets with one key alone held from the frame before the
    last context frame up to them, and the target is at least half as far along the key's mean; always the
    same, evenly spread.

    - `key_accuracy`: mean over the keys of the share of their cases that is recognised; chance is 1/6.
    - `key_accuracy_moves` among W, S, A and D alone (chance 1/4), `key_accuracy_turns` among LEFT and RIGHT (1/2).
    - `…_stderr`: standard errors of these.
    - `key_recognition/<source>/step_*.json` in the run folder: how often each key (row) was taken for each (column).

    A source that shows no case of some key is left out. See `FinalEvaluation` for when it runs.

    Args:
        cases: of each key; fewer where there are not so many.
        seed: of the noise.
    """

    def __init__(self, cases: int = 20, seed: int = 0) -> None:
        self.cases, self.seed = cases, seed

    def evaluate(self, trainer: Trainer, module: Any, source: str, dataset: DocumentDataset) -> dict[str, float]:
        """See `FinalEvaluation.evaluate`."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(dataset, ActionVideoDataset):
            return {}
        try:
            training = data.open("train").get(source)
        except Mistake as error:
            logger.warning("%s: keys are not recognised without training data: %s", source, error)
            return {}
        if not isinstance(training, ActionVideoDataset):
            return {}
        settings: ActionVideoSource = data.mixture.sources[source]
        if settings.actions != "moves" or settings.contexts > 1:
            logger.warning("%s: keys are not recognised: it takes actions: moves, and contexts: 1", source)
            return {}
        try:
            means = mean_displacements(training.table, settings)
            cases = balanced(find_cases(dataset, means, settings.unit), self.cases)
        except BrokenFile as error:
            logger.warning("%s: keys are not recognised: %s", source, error)
            return {}
        missing = [key for number, key in enumerate(KEYS) if not any(case.key == number for case in cases)]
        if missing:
            logger.warning("%s: keys are not recognised: nothing shows %s alone", source, ", ".join(missing))
            return {}
        texts = {ahead: action_texts(of_keys, ahead, settings) for ahead, of_keys in means.items()}
        losses = self._losses(module.decoder(), dataset, cases, texts)
        keys = torch.tensor([case.key for case in cases])
        self._write(trainer, source, confusion(losses, keys), texts)
        return accuracies(losses, keys)

    def _losses(
        self, decoder: Decoder, dataset: ActionVideoDataset, cases: Sequence[Case], texts: Mapping[int, Sequence[str]]
    ) -> Tensor:
        """(cases, keys) flow losses."""
        t = decoder.tokenizer
        tokens = {ahead: t.encode_batch(list(of_keys)) for ahead, of_keys in texts.items()}
        losses = []
        for number, case in enumerate(cases):
            segments = dataset.document(Draw(case.document, 0, 0)).segments
            context = [segment for segment in segments if segment.branch == 0]
            targets = [segment for segment in segments if isinstance(segment, Frame) and segment.branch > 0]
            target = replace(targets[case.target], branch=0)
            actions = [Text(torch.tensor([t.eoi_id, *ids, t.boi_id])) for ids in tokens[case.ahead]]
            losses.append(
                candidate_losses(decoder, [[*context, action] for action in actions], target, self.seed + number)
            )
        return torch.stack(losses)

    def _write(self, trainer: Trainer, source: str, table: Tensor, texts: Mapping[int, Sequence[str]]) -> None:
        run = run_folder(trainer)
        if not run or not trainer.is_global_zero:
            return
        file = unused(run / "key_recognition" / source / f"step_{trainer.global_step:07d}.json")
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {"keys": KEYS, "confusion": table.tolist(), "actions": texts}
        file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def candidate_losses(decoder: Decoder, prefixes: Sequence[Prefix], target: Frame, seed: int) -> Tensor:
    """(candidates,) mean flow loss of the target behind each prefix, all with the same timesteps and noise."""
    *encoded, (shown,) = decoder.encode([*prefixes, [target]])
    assert isinstance(shown, Frame)
    count, flow, vision = len(prefixes), decoder.flow, decoder.vision
    latents = shown.image.to(decoder.device)[None, :, : vision.channels].expand(TIMESTEPS, -1, -1)
    grid = flow.timestep_grid([0], [TIMESTEPS], decoder.device, flow.noise_shift(vision.num_tokens, vision.channels))
    samples = flow.sample(latents, grid, [seed], [TIMESTEPS])
    total = torch.zeros(count, device=decoder.device)
    with torch.compiler.set_stance("force_eager"):  # rows are of any length: compiled blocks would be compiled for each
        rows = CachedRows(decoder.model, vision, flow, count)
        rows.append(range(count), encoded)
        predict = rows.frame(range(count))
        for number in range(TIMESTEPS):
            sample = samples[torch.full((count,), number, device=decoder.device)]
            total += flow.frame_losses(predict(sample.noised, sample.timesteps), sample)
    return (total / TIMESTEPS).cpu()


def accuracies(losses: Tensor, keys: Tensor) -> dict[str, float]:
    """Accuracies balanced over keys, and standard errors, from losses (cases, keys) and true keys (cases,)."""
    values = {}
    for name, subset in SUBSETS.items():
        indices = torch.tensor([KEYS.index(key) for key in subset])
        answers = indices[losses[:, indices].argmin(1)]
        right = [(answers[keys == index] == index).double() for index in indices]
        shares = [float(of_key.mean()) for of_key in right]
        variances = [share * (1 - share) / len(of_key) for share, of_key in zip(shares, right, strict=True)]
        values[f"key_accuracy{name}"] = sum(shares) / len(shares)
        values[f"key_accuracy{name}_stderr"] = math.sqrt(sum(variances)) / len(shares)
    return values


def confusion(losses: Tensor, keys: Tensor) -> Tensor:
    """(keys, keys) int64, how many cases of each key have the lowest loss under each key."""
    count = len(KEYS)
    return (keys * count + losses.argmin(1)).bincount(minlength=count * count).view(count, count)


def key_runs(table: VideoTable, row: int) -> tuple[np.ndarray, np.ndarray]:
    """For every frame of an episode, the key held alone (index in KEYS, else -1) and until which frame it stays.

    Raises:
        BrokenFile: the table beside the video cannot be read, or has no column `keys`.
    """
    _, found = read_table(Path(table.path(row)), (COLUMN,), len(table.numbers("pts", row)))
    names = found[COLUMN]
    held = np.array([KEYS.index(name) if name in KEYS else -1 for name in names])
    last = np.append(np.flatnonzero(np.diff(held)), len(held) - 1)
    return held, last[np.searchsorted(last, np.arange(len(held)))]


def _moved(pose_from: Pose, pose_to: Pose, unit: float) -> np.ndarray:
    return np.array(displacement(pose_from, pose_to)) / (unit, unit, 1.0)


def _poses(table: VideoTable, row: int) -> list[Pose]:
    return [Pose(*pose) for pose in np.stack([table.numbers(name, row) for name in POSE], 1).tolist()]


def mean_displacements(table: VideoTable, settings: ActionVideoSource) -> dict[int, np.ndarray]:
    """(keys, 3) mean displacements from a frame to one some steps ahead, with one key held alone all the time.

    Only for those numbers of steps up to the horizon at which every key was seen.
    """
    horizon, frame_step = settings.horizon, settings.frame_step
    sums, counts = np.zeros((horizon + 1, len(KEYS), 3)), np.zeros((horizon + 1, len(KEYS), 1))
    for row in table.usable().tolist():
        held, until = key_runs(table, row)
        poses = _poses(table, row)
        for ahead in range(1, horizon + 1):
            anchors = np.arange(1, len(held) - ahead * frame_step)
            alone = (held[anchors] >= 0) & (until[anchors - 1] >= anchors + ahead * frame_step - 1)
            for anchor in anchors[alone].tolist():
                sums[ahead, held[anchor]] += _moved(poses[anchor], poses[anchor + ahead * frame_step], settings.unit)
                counts[ahead, held[anchor]] += 1
    return {ahead: sums[ahead] / counts[ahead] for ahead in range(1, horizon + 1) if counts[ahead].all()}


def action_texts(means: np.ndarray, ahead: int, settings: ActionVideoSource) -> list[str]:
    """What the mean displacement (keys, 3) of each key is called in documents."""
    start = Pose(0.0, 0.0, 0.0)
    ends = [Pose(dx, dy, math.degrees(turn)) for dx, dy, turn in means.tolist()]
    return [action_text(start, end, ahead / settings.horizon) for end in ends]


def find_cases(dataset: ActionVideoDataset, means: Mapping[int, np.ndarray], unit: float) -> Iterator[Case]:
    """Every target up to which one key alone was held and moved at least half as far as on the average."""
    order, columns = dataset.order, dataset.documents.data
    rows, anchors = (columns.column(name).to_numpy()[order] for name in ("row", "anchor"))
    steps = columns.column("ahead").take(order).to_pylist()
    for row in np.unique(rows).tolist():
        held, until = key_runs(dataset.table, row)
        poses = _poses(dataset.table, row)
        for number in np.flatnonzero(rows == row).tolist():
            anchor = int(anchors[number])
            for target, ahead in enumerate(steps[number]):
                last = anchor + ahead * dataset.frame_step
                if ahead not in means or anchor == 0 or held[anchor] < 0 or until[anchor - 1] < last - 1:
                    continue
                mean = means[ahead][held[anchor]]
                if np.dot(_moved(poses[anchor], poses[last], unit), mean) >= np.dot(mean, mean) / 2:
                    yield Case(number, target, ahead, int(held[anchor]))


def balanced(cases: Iterator[Case], count: int) -> list[Case]:
    """Up to `count` cases of each key, evenly spread over all of its cases."""
    chosen: list[Case] = []
    every = sorted(cases)
    for key in range(len(KEYS)):
        of_key = [case for case in every if case.key == key]
        chosen += [of_key[i] for i in np.linspace(0, len(of_key) - 1, min(count, len(of_key))).astype(int)]
    return chosen

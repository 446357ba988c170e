"""Keys of made-up episodes, candidates by hand, and losses against whole passes of the model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from callbacks.evaluation.game import key_recognition
from callbacks.evaluation.game.key_recognition import (
    KEYS,
    Case,
    KeyRecognition,
    accuracies,
    candidate_losses,
    find_cases,
    mean_displacements,
)
from data_modules.action_video import ActionVideoDataset, ActionVideoSource
from data_modules.dataset import DocumentFormat, Draw
from lit_mm.cli import main
from lit_mm.flow import FlowSample
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.rows import CachedRows
from lit_mm.module import LitMultimodal
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, Frame, PackedRow, Text
from lit_mm.tokenizer import Tokenizer
from tests.data_modules.video_files import moving_picture, write_video
from tests.helpers.program import ROOT, SMALL
from tests.helpers.small_model import small_model

UNIT = 2.0
STEPS = {"W": (1, 0, 0), "S": (-1, 0, 0), "A": (0, 1, 0), "D": (0, -1, 0), "LEFT": (0, 0, 4), "RIGHT": (0, 0, -4)}
HELD = [key for key in KEYS for _ in range(5)]  # five frames each, and one in which nothing is held


def write_episode(folder: Path, name: str, stuck: int | None = None) -> None:
    """Heading north; a key moves by 1, 2, 3, 4 and 5 times its step. In frame `stuck` nothing moves."""
    pose, rows = np.array([10.0, 20.0, 0.0]), []
    for frame, key in enumerate([*HELD, ""]):
        rows.append({"frame": frame, "keys": key, "x": -pose[1], "y": pose[0], "angle": 90 + pose[2]})
        if key and frame != stuck:
            turn = np.deg2rad(pose[2])
            forward, left, angle = np.array(STEPS[key]) * (frame % 5 + 1)
            pose += (np.cos(turn) * forward - np.sin(turn) * left, np.sin(turn) * forward + np.cos(turn) * left, angle)
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    write_video(folder / f"{name}.mp4", moving_picture(len(rows)))


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(ROOT / "data/tiny/tokenizer.json")


@pytest.fixture
def settings(tmp_path: Path) -> ActionVideoSource:
    """Two steps ahead at most, all targets of all frames that have one before them."""
    write_episode(tmp_path / "train", "one")
    write_episode(tmp_path / "val", "two", stuck=3)  # the fourth frame of W
    return ActionVideoSource(str(tmp_path / "train"), str(tmp_path / "val"), unit=UNIT, context=2, horizon=2, targets=2)


def load(settings: ActionVideoSource, split: Any, tokenizer: Tokenizer) -> ActionVideoDataset:
    dataset = settings.dataset(split, "game", DocumentFormat(tokenizer, 64, 16))
    assert dataset is not None
    return dataset


def test_candidates_are_the_means_by_hand(settings: ActionVideoSource, tokenizer: Tokenizer) -> None:
    means = mean_displacements(load(settings, "train", tokenizer).table, settings)
    # One step from the second to the fifth frame of a key: 2, 3, 4, 5. Two from the second to the fourth: 5, 7, 9.
    for ahead, mean in ((1, 3.5), (2, 7.0)):
        expected = [np.array(STEPS[key]) * mean / (UNIT, UNIT, 180 / np.pi) for key in KEYS]
        np.testing.assert_allclose(means[ahead], expected, atol=1e-9)
    assert key_recognition.action_texts(means[1], 1, settings) == [
        "action: dx=+1.750, dy=+0.000, dyaw=+0.000, rel_t=+0.500",
        "action: dx=-1.750, dy=+0.000, dyaw=+0.000, rel_t=+0.500",
        "action: dx=+0.000, dy=+1.750, dyaw=+0.000, rel_t=+0.500",
        "action: dx=+0.000, dy=-1.750, dyaw=+0.000, rel_t=+0.500",
        "action: dx=+0.000, dy=+0.000, dyaw=+0.244, rel_t=+0.500",  # 14 degrees
        "action: dx=+0.000, dy=+0.000, dyaw=-0.244, rel_t=+0.500",
    ]
    assert key_recognition.action_texts(means[2], 2, settings)[4] == (
        "action: dx=+0.000, dy=+0.000, dyaw=+0.489, rel_t=+1.000"  # 28 degrees
    )


def test_cases_are_those_by_hand(settings: ActionVideoSource, tokenizer: Tokenizer) -> None:
    means = mean_displacements(load(settings, "train", tokenizer).table, settings)
    dataset = load(settings, "val", tokenizer)
    found = sorted(
        (KEYS[case.key], case.ahead, frame_number(dataset, case)) for case in find_cases(dataset, means, UNIT)
    )
    expected = []
    for place, key in enumerate(KEYS):
        first = 5 * place
        for ahead, anchors in ((1, (1, 2, 3, 4)), (2, (1, 2, 3))):
            expected += [(key, ahead, first + anchor + ahead) for anchor in anchors]
    # In its fourth frame W does not move: one step from there goes nowhere, two from the third go 3 of 7.
    stuck = {("W", 1, 4), ("W", 2, 4)}
    assert found == sorted(set(expected) - stuck)


def frame_number(dataset: ActionVideoDataset, case: Case) -> int:
    action, target, _ = (s for s in dataset.document(Draw(case.document, 0, 0)).segments if s.branch == case.target + 1)
    assert isinstance(action, Text)
    assert isinstance(target, Frame)
    return int(target.origin.rpartition(" ")[2])


def test_a_model_that_knows_some_keys(
    settings: ActionVideoSource, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows moves always, LEFT never, and takes RIGHT for W every other time."""
    times: list[int] = []

    def known(decoder: Any, prefixes: Any, target: Frame, seed: int) -> Tensor:
        number = int(target.origin.rpartition(" ")[2])
        key = HELD[number - 1]
        if key == "RIGHT":
            times.append(seed)
        taken = {"LEFT": "RIGHT", "RIGHT": "W" if len(times) % 2 else "RIGHT"}.get(key, key)
        losses = torch.ones(len(KEYS))
        losses[KEYS.index("RIGHT")] = 0.9
        losses[KEYS.index(taken)] = 0.5
        assert [len(prefix) for prefix in prefixes] == [5] * len(KEYS)
        return losses

    monkeypatch.setattr(key_recognition, "candidate_losses", known)
    datasets = {split: {"game": load(settings, split, tokenizer)} for split in ("train", "val")}
    data = SimpleNamespace(open=datasets.__getitem__, mixture=SimpleNamespace(sources={"game": settings}))
    run = {
        "loggers": [],
        "default_root_dir": tmp_path / "run",
        "strategy": SimpleNamespace(broadcast=lambda value: value),
    }
    trainer: Any = SimpleNamespace(datamodule=data, is_global_zero=True, global_step=7, **run)
    module = SimpleNamespace(decoder=lambda: SimpleNamespace(tokenizer=tokenizer))
    found = KeyRecognition(cases=4).evaluate(trainer, module, "game", datasets["val"]["game"])
    assert found["key_accuracy"] == pytest.approx((4 + 0 + 0.5) / 6)
    assert found["key_accuracy_moves"] == 1.0
    assert found["key_accuracy_turns"] == pytest.approx((0 + 1) / 2)
    assert found["key_accuracy_stderr"] == pytest.approx(math.sqrt(0.25 / 4) / 6)
    written = json.loads((tmp_path / "run/key_recognition/game/step_0000007.json").read_text())
    assert written["confusion"] == [
        [4, 0, 0, 0, 0, 0],
        [0, 4, 0, 0, 0, 0],
        [0, 0, 4, 0, 0, 0],
        [0, 0, 0, 4, 0, 0],
        [0, 0, 0, 0, 0, 4],
        [2, 0, 0, 0, 0, 2],
    ]
    assert written["actions"]["1"][0] == "action: dx=+1.750, dy=+0.000, dyaw=+0.000, rel_t=+0.500"


def test_random_losses_give_chance() -> None:
    keys = torch.arange(6).repeat(2000)
    found = accuracies(torch.rand(len(keys), 6, generator=torch.Generator().manual_seed(0)), keys)
    for name, chance in (("key_accuracy", 1 / 6), ("key_accuracy_moves", 1 / 4), ("key_accuracy_turns", 1 / 2)):
        assert found[name] == pytest.approx(chance, abs=4 * found[f"{name}_stderr"])
        assert 0 < found[f"{name}_stderr"] < 0.02


@pytest.fixture
def module() -> LitMultimodal:
    lit = small_model().eval()
    lit.configure_model()
    with torch.no_grad():
        for parameter in lit.model.parameters():  # at their beginning, blocks hardly let a frame see its action
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    return lit


def test_losses_are_those_of_whole_passes_with_one_noise_for_all(
    module: LitMultimodal, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (3, 3, 64, 64), generator=generator, dtype=torch.uint8)
    context, target = [Frame(p, clean=True) for p in pictures[:2]], Frame(pictures[2])
    t = tokenizer
    prefixes = []
    for action in ("action: dx=+1.000", "action: dx=-12.345, dy", "action: dx=+1.000"):
        ending = Text(torch.tensor([t.eoi_id, *t.encode_batch([action])[0], t.boi_id]))
        between = Text(t.ids(t.eoi_id, t.boi_id))
        prefixes.append([Text(t.ids(t.bos_id, t.boi_id)), context[0], between, context[1], ending])

    shown: list[Tensor] = []
    opened = CachedRows.frame

    def watched(self: CachedRows, rows: Any) -> Any:
        predict = opened(self, rows)

        def watching(noisy: Tensor, timesteps: Tensor) -> Tensor:
            shown.append(torch.cat([noisy.flatten(1), timesteps[:, None]], 1))
            return predict(noisy, timesteps)

        return watching

    monkeypatch.setattr(CachedRows, "frame", watched)
    decoder = Decoder(module.model, module.vision, module.flow, module.sampler, tokenizer)
    with torch.no_grad():
        losses = candidate_losses(decoder, prefixes, target, seed=5)
    assert losses[0] == pytest.approx(float(losses[2]), rel=1e-5)
    assert abs(losses[0] - losses[1]) > 1e-3
    assert len(shown) == 8
    assert all(bool((noisy == noisy[0]).all()) for noisy in shown)
    assert len({float(noisy[0, -1]) for noisy in shown}) == 8

    batch = pack_rows(
        [PackedRow((Document((*prefix, target), "game"),), 0, 0) for prefix in prefixes],
        length=256,
        tokens_per_frame=16,
        image_size=64,
        pad_id=t.pad_id,
        sources=("game",),
    )
    expected = torch.zeros(3)
    for noisy in shown:
        at = noisy[0, -1]
        clean = module.vision.encode(pictures[2:])
        used = (noisy[:1, :-1].view_as(clean) - at * clean) / (1 - at)  # z_t = (1 - t) noise + t z
        every = used.expand(9, -1, -1)
        monkeypatch.setattr(module.flow, "sample", lambda z, t, *_, every=every: FlowSample(z, every, t))
        with torch.no_grad():
            expected += module.losses(batch, at.expand(9).masked_fill(batch.frame_clean, 1.0)).flow / 8
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


def test_validate_measures_understanding(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    main(
        [
            "validate",
            f"--ckpt_path={trained}",
            f"--trainer.logger.save_dir={tmp_path}",
            "--trainer.callbacks=[]",
            "--trainer.callbacks+=callbacks.evaluation.picture_matching.PictureMatching",
            "--trainer.callbacks.pairs=20",
            "--trainer.callbacks+=callbacks.evaluation.game.key_recognition.KeyRecognition",
            "--trainer.callbacks.cases=2",
            "--trainer.callbacks+=callbacks.pages.results_table.ResultsTable",
            *[argument for argument in SMALL if argument.startswith("--data")],
        ]
    )
    (file,) = tmp_path.rglob("validation.jsonl")
    results = json.loads(file.read_text())
    names = [f"action_video/key_accuracy{subset}" for subset in ("", "_moves", "_turns")]
    names += [f"image_text/{name}" for name in ("picture_matching", "caption_matching", "caption_matching_pmi")]
    for name in names:
        assert 0 <= results[f"val/{name}"] <= 1
        assert math.isfinite(results[f"val/{name}_stderr"])
    (table,) = tmp_path.rglob("key_recognition/action_video/step_0000003.json")
    assert sum(map(sum, json.loads(table.read_text())["confusion"])) == 12

"""A walk is what `predict` draws, can be taken back exactly, and stays small."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from data_modules.prompting.prompts import Prompts
from data_modules.reading.actions import sentence_text
from data_modules.reading.pictures import read_picture
from lit_mm.generation.answers import answer_all
from lit_mm.mistake import Mistake
from lit_mm.play import walk as walking
from lit_mm.play.game import Game
from lit_mm.play.saving import archive
from lit_mm.play.walk import Moment, Walk
from tests.helpers.program import ROOT, run

KEYS = ("W", "A", "S", "D")


@pytest.fixture
def walk(game: Game) -> Walk:
    walk = Walk(game.model.decoder, game.context, game.model.context, game.settings)
    walk.begin([shore()], [None])
    return walk


def shore() -> Tensor:
    return read_picture(ROOT / "configs/prompts/lab/shore.png", 64)


def go(walk: Walk, action: str, truth: np.ndarray | None = None) -> Moment:
    steps = walk.step(action, lambda: truth)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def press(walk: Walk, game: Game, *keys: str) -> list[Moment]:
    return [go(walk, game.action([key])[0]) for key in keys]


def unpacked(packed: bytes, folder: Path) -> Path:
    zipfile.ZipFile(io.BytesIO(packed)).extractall(folder)
    return folder / "walk/prompts.yaml"


def test_the_saved_prompt_asks_for_the_same_frames_bit_by_bit(walk: Walk, game: Game, tmp_path: Path) -> None:
    walk.change(replace(game.settings, seed=5, guidance=2.0))
    moments = press(walk, game, *"WA")
    walk.read()  # as it does while nobody presses a key
    moments += [go(walk, sentence_text(["step up"])), *press(walk, game, "D")]
    (prompt,) = [Prompts(str(unpacked(archive(walk, "lab"), tmp_path)), 64)[0]]
    (answer,) = answer_all(game.model.decoder, [prompt], game.model.context)
    frames = answer.frames.permute(0, 2, 3, 1).numpy()  # type: ignore[union-attr]
    for moment, frame in zip(moments, frames, strict=True):
        np.testing.assert_array_equal(moment.picture, frame)


@pytest.mark.slow
def test_predict_draws_the_same_frames_for_the_saved_prompt(walk: Walk, game: Game, tmp_path: Path) -> None:
    walk.change(replace(game.settings, seed=5, steps=3, guidance=2.0))
    moments = press(walk, game, *"WWA")
    walk.read()  # as it does while nobody presses a key
    moments += [go(walk, sentence_text(["step up"])), *press(walk, game, "D")]
    file = unpacked(archive(walk, "lab"), tmp_path)
    folder = tmp_path / "predictions"
    precision = "--trainer.callbacks+=callbacks.pages.prediction_writer.PredictionWriter"
    run(
        "predict", "--ckpt_path=lab", f"--data.prompts={file}", "--trainer.callbacks=[]", precision,
        f"--trainer.callbacks.folder={folder}", f"--trainer.logger.save_dir={tmp_path}",
    )  # fmt: skip
    drawn = [np.array(Image.open(folder / f"walk.{number}.png")) for number in range(len(moments))]
    for moment, picture in zip(moments, drawn, strict=True):
        apart = np.abs(
            moment.picture.astype(int) - picture.astype(int)
        )  # sums in another order round to the next level
        assert apart.max() <= 1
        assert np.count_nonzero(apart) <= 4


def test_changed_settings_begin_a_stretch_that_predict_draws_as_well(walk: Walk, game: Game, tmp_path: Path) -> None:
    moments = press(walk, game, "W", "W")
    walk.change(replace(game.settings, noise=0.5))
    moments += press(walk, game, "A", "S")
    walk.change(replace(walk.settings, pace=3))
    moments += press(walk, game, "A")
    assert [len(stretch.moments) for stretch in walk.stretches] == [2, 3], "another pace draws nothing else"
    prompts = Prompts(str(unpacked(archive(walk, "lab"), tmp_path)), 64)
    answers = answer_all(game.model.decoder, [prompts[0], prompts[1]], game.model.context)
    frames = [frame for answer in answers for frame in answer.frames]  # type: ignore[union-attr]
    for moment, frame in zip(moments, frames, strict=True):
        # Prompts that are answered together have sums in another order.
        assert np.abs(moment.picture.astype(int) - frame.permute(1, 2, 0).numpy().astype(int)).max() <= 1


def test_undo_gives_back_the_exact_frame_and_what_follows_it(walk: Walk, game: Game) -> None:
    _first, second, third = press(walk, game, *"WAD")
    assert walk.undo() is third
    assert walk.now is second
    assert walk.undo() is second
    again = press(walk, game, "A", "D")
    for one, other in zip(again, (second, third), strict=True):
        np.testing.assert_array_equal(one.picture, other.picture)
        assert torch.equal(one.latents, other.latents)
    for _ in range(3):
        walk.undo()
    np.testing.assert_array_equal(walk.now.picture, shore().permute(1, 2, 0).numpy())
    with pytest.raises(Mistake, match="no frame to undo"):
        walk.undo()


def test_undo_goes_back_over_where_settings_changed(walk: Walk, game: Game) -> None:
    first, second = press(walk, game, "W", "W")
    walk.change(replace(game.settings, seed=9))
    walk.undo()
    assert walk.now.picture is first.picture or np.array_equal(walk.now.picture, first.picture)
    (other,) = press(walk, game, "W")
    assert not np.array_equal(other.picture, second.picture), "the new seed draws with other noise"


def test_what_is_true_becomes_what_was_seen(walk: Walk, game: Game) -> None:
    with pytest.raises(Mistake, match="nobody knows what is true"):
        walk.go_on_from_truth()
    meadow = read_picture(ROOT / "configs/prompts/lab/meadow.png", 64).permute(1, 2, 0).numpy()
    go(walk, game.action(["W"])[0], truth=meadow)
    walk.go_on_from_truth()
    np.testing.assert_array_equal(walk.now.picture, meadow)
    moved = press(walk, game, "W")[0]
    other = Walk(game.model.decoder, 1, 512, game.settings)
    other.begin([torch.from_numpy(meadow).permute(2, 0, 1)], [None])
    np.testing.assert_array_equal(press(other, game, "W")[0].picture, moved.picture)


def test_a_long_walk_is_kept_in_part(walk: Walk, game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "LONGEST", 2)
    monkeypatch.setattr(walking, "MOST_FRAMES", 6)
    walk.change(replace(game.settings, steps=1))
    press(walk, game, *KEYS * 4)
    assert [len(stretch.moments) for stretch in walk.stretches] == [2, 2, 2, 2]
    assert walk.number == 16
    for seed in range(60):
        walk.change(replace(walk.settings, seed=seed))
    kept = [len(stretch.moments) for stretch in walk.stretches]
    assert kept == [2, 2, 2, 0], "a stretch without a frame gives way to the next"


def test_a_sentence_that_is_too_long_leaves_the_walk_as_it_was(walk: Walk, game: Game) -> None:
    press(walk, game, "W")
    with pytest.raises(Mistake, match="the sentence is too long: .* rows of 512"):
        go(walk, sentence_text(["step up and " * 300]))
    assert walk.length == 1
    assert len(press(walk, game, "W")) == 1


def test_keys_that_are_held_together(game: Game) -> None:
    assert game.action(["W"]) == game.action(["D", "W"]), "of what is told one thing at a time the newest counts"
    assert game.action([])[1] == game.action(["unknown"])[1] == game.action(["stay"])[1] == (0, 0, 0)
    moves = replace(game, walks=replace(game.walks, actions="moves"))  # type: ignore[type-var]
    assert moves.action(["W", "D"])[1] == (1, -1, 0)
    assert moves.action(["W", "S"])[1] == (0, 0, 0)


def test_there_is_nothing_to_save_at_first(walk: Walk) -> None:
    with pytest.raises(Mistake, match="nothing to save yet"):
        archive(walk, "lab")


def test_the_film_has_every_frame_with_the_truth_beside_it(walk: Walk, game: Game, tmp_path: Path) -> None:
    true = shore().permute(1, 2, 0).numpy()
    walk.begin([shore()], [true])
    for key in "WA":
        go(walk, game.action([key])[0], truth=true)
    unpacked(archive(walk, "lab"), tmp_path)
    with Image.open(tmp_path / "walk/walk.gif") as film:
        assert film.n_frames == 3  # type: ignore[attr-defined]
        film.seek(2)
        assert film.width > 2 * film.height
    (prompt,) = [Prompts(str(tmp_path / "walk/prompts.yaml"), 64)[0]]
    assert np.array_equal(prompt.truth[1].permute(1, 2, 0), true)  # type: ignore[union-attr,index]

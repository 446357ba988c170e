"""The model that comes with the package, on a map it was never trained on: what it draws, says, answers and foresees."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import lit_mm
from data_modules.recipes.crafter_world import MOVES, Crafter
from lit_mm import LoadedModel
from lit_mm.lab.facts import Fact, facts
from lit_mm.lab.grammar import caption, parse, parse_leniently
from lit_mm.lab.moves import moved
from lit_mm.lab.questions import Asked, parse_answer, questions
from lit_mm.lab.scene import Scene, WorldFile
from lit_mm.lab.tiles import read_picture
from lit_mm.mistake import Mistake
from tests.helpers.program import ROOT
from tests.test_configs import parse as parsed

FOLDER = ROOT / "lit_mm/weights/lab"
WORLD = WorldFile.load(ROOT / "tests/lab/crafter/world.json")
VIEWS = 24
# Shares that are right at least, of so many views: some standard errors below those of the weights that are shipped.
DRAWN, DESCRIBED, ANSWERED, WALKED, STAYED = 0.6, 0.78, 0.75, 0.85, 0.8


class View(NamedTuple):
    """A place on the map: its picture, what is in view, a caption and a question; and true steps by key.

    Attributes:
        steps: rows down and columns to the right. Keys after which the true view does not tell the step are left out.
    """

    picture: np.ndarray
    scene: Scene
    caption: str
    question: str
    answer: str
    steps: dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return lit_mm.load("lab", "cpu")


@pytest.fixture(scope="module")
def views() -> list[View]:
    crafter, random, asked = Crafter().start(987654321), np.random.default_rng(0), Asked()
    found = []
    for _ in range(VIEWS):
        crafter.place(random)
        scene, picture = crafter.scene(), crafter.picture()
        ((question, answer, _),) = questions(WORLD, scene, random, 1, asked)
        steps = {}
        for key in MOVES:
            gone, (x, y) = crafter.copy(), crafter.position
            gone.step(key)
            step = (y - gone.position[1], gone.position[0] - x)
            if moved(WORLD, scene, gone.scene()) == step:
                steps[key] = step
        found.append(View(picture, scene, caption(WORLD, scene, random, dense=True), question, answer, steps))
    return found


def scenes(pictures: list[Image.Image]) -> list[Scene]:
    return read_picture(WORLD, torch.from_numpy(np.stack([np.array(one) for one in pictures])).permute(0, 3, 1, 2))


def share_true(said: list[frozenset[Fact]], views: list[Scene]) -> float:
    """Of all that is said of each view."""
    true = [len(of_one & facts(WORLD, scene)) for of_one, scene in zip(said, views, strict=True)]
    return sum(true) / sum(len(of_one) for of_one in said)


def test_it_fits_in_the_package_and_names_no_file_of_the_machine_it_was_trained_on() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 32e6
    weights = load_file(FOLDER / "model.safetensors").values()
    assert {w.dtype for w in weights if w.is_floating_point()} == {torch.bfloat16}
    config = (FOLDER / "config.yaml").read_text()
    assert yaml.safe_load(config)["trainer"]["logger"]["init_args"]["save_dir"] == "runs"
    assert ": /" not in config


def test_it_is_the_model_of_configs_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    """So `lit-mm validate --config configs/lab.yaml --ckpt_path lab` measures it, and a fit of that file makes it again."""
    of_file = parsed(monkeypatch, ["validate", "--config=configs/lab.yaml"]).clone(with_meta=False)
    shipped = parsed(monkeypatch, ["validate", "--ckpt_path=lab"]).clone(with_meta=False)
    for key in ("model.init_args.backbone", "model.init_args.vision", "model.init_args.flow", "data.init_args.sources"):
        assert shipped[key] == of_file[key], key


def test_it_draws_what_a_caption_says(model: LoadedModel, views: list[View]) -> None:
    drawn = scenes(model.draw([view.caption for view in views], seed=list(range(VIEWS)), guidance=4.0))
    told = [parse(WORLD, view.caption) for view in views]
    own, anothers = share_true(told, drawn), share_true([*told[1:], told[0]], drawn)
    print(f"{own:.3f} of the facts are true of its own drawing, {anothers:.3f} of another's")
    assert own >= DRAWN
    assert own >= anothers + 0.1


def test_what_it_says_of_a_picture_is_true(model: LoadedModel, views: list[View]) -> None:
    texts = model.describe([view.picture for view in views], max_tokens=128)
    said = [parse_leniently(WORLD, text)[0] for text in texts]
    of_views = [view.scene for view in views]
    own, anothers = share_true(said, of_views), share_true([*said[1:], said[0]], of_views)
    print(f"{own:.3f} of the stated facts are true of the picture, {anothers:.3f} of another")
    assert sum(map(len, said)) >= 3 * VIEWS, "it says something"
    assert own >= DESCRIBED
    assert own >= anothers + 0.1


def test_it_answers(model: LoadedModel, views: list[View]) -> None:
    given = [model.describe(view.picture, view.question, max_tokens=16, stop=["."]) for view in views]
    right = 0
    for view, text in zip(views, given, strict=True):
        try:
            right += parse_answer(WORLD, view.question, text) == parse_answer(WORLD, view.question, view.answer)
        except Mistake:  # no answer to this question
            continue
    print(f"{right / VIEWS:.3f} of the answers are right")
    assert right / VIEWS >= ANSWERED


@pytest.mark.parametrize(("blocked", "least"), [(False, WALKED), (True, STAYED)])
def test_it_walks_as_told_and_stays_where_the_way_is_blocked(
    model: LoadedModel, views: list[View], blocked: bool, least: float
) -> None:
    told: list[tuple[View, str]] = []
    for number, view in enumerate(views):  # in turn up, left, down, right
        turn = [*list(MOVES)[number % 4 :], *list(MOVES)[: number % 4]]
        told += [(view, key) for key in turn if view.steps.get(key) == ((0, 0) if blocked else MOVES[key])][:1]
    walked = model.imagine(
        [[view.picture] for view, _ in told], [key for _, key in told], seed=[*range(len(told))], steps=4
    )
    pairs = zip(told, scenes([frame for (frame,) in walked]), strict=True)
    right = np.mean([moved(WORLD, view.scene, scene) == view.steps[key] for (view, key), scene in pairs])
    print(f"{right:.3f} of {len(told)} steps are right")
    assert len(told) >= (12 if blocked else 20)
    assert right >= least

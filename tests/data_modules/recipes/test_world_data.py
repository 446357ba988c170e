"""The data of a world, with a toy world whose truth is plain."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from data_modules.recipes.tokenizer import train_on
from data_modules.recipes.world_cuts import Cut, parse_cuts
from data_modules.recipes.world_data import (
    FOLDERS,
    VIDEOS,
    Plan,
    Sizes,
    check_enough,
    write_data,
    write_map,
    write_world,
)
from data_modules.recipes.world_episodes import SHORTEST
from data_modules.recipes.world_pictures import save_picture
from data_modules.recipes.world_tokenizer import PIECES, action_lines
from lit_mm.lab.concepts import Concept
from lit_mm.lab.facts import facts
from lit_mm.lab.grammar import parse
from lit_mm.lab.questions import parse_answer
from lit_mm.lab.scene import Scene, WorldFile
from lit_mm.lab.tiles import read_tiles
from lit_mm.mistake import Mistake
from lit_mm.tokenizer import Tokenizer
from tests.helpers.meadow import SIDE, Meadow
from tests.helpers.program import ROOT

Hashes = Callable[[Path], dict[str, str]]
PICTURES = ("drawing", "reading", "questions")
SIZES = Sizes(maps=2, pictures=24, videos=2, episodes=4, frames=16, texts=24)


def plan(*without: str, night: float = 0.25, seed: int = 3) -> Plan:
    return Plan(Meadow(), SIZES, seed, night, without)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meadow")
    write_data(folder, plan(), workers=1)
    return folder


@pytest.fixture(scope="module")
def rules(data: Path) -> WorldFile:
    return WorldFile.load(data / "world.json")


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def frames(file: Path) -> torch.Tensor:
    with av.open(str(file)) as container:
        return torch.stack(
            [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        ).permute(0, 3, 1, 2)


def made_here(folder: Path, what: Plan, split: str, *, told: bool, number: int = 0) -> Path:
    """One map, in this process."""
    folder.mkdir(exist_ok=True)
    write_world(folder, what.kind)
    for name in FOLDERS:
        (folder / name / split).mkdir(parents=True, exist_ok=True)
    for name, made in write_map(folder, what, split, told, number).items():
        if not isinstance(made, int):
            lines = "".join(json.dumps(row) + "\n" for row in made)
            (folder / name / split / "rows.jsonl").write_text(lines)
    return folder


def test_pictures_are_what_their_rows_say(data: Path, rules: WorldFile) -> None:
    maps = {}
    for split, count in (("train", 24), ("val", 1), ("test", 2)):
        for stream in PICTURES:
            folder = data / stream / split
            found = rows(folder / "metadata.jsonl")
            assert len(found) == count
            assert sorted(row["file_name"] for row in found) == sorted(path.name for path in folder.glob("*.png"))
            pictures = [np.asarray(Image.open(folder / row["file_name"]).convert("RGB")) for row in found]
            read = read_tiles(rules, torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
            assert read.tiles.tolist() == [row["tiles"] for row in found]
            assert read.night.tolist() == [row["night"] for row in found]
            maps.setdefault(split, set()).update(row["world"] for row in found)
    assert not maps["train"] & maps["val"] | maps["train"] & maps["test"] | maps["val"] & maps["test"]
    nights = [row["night"] for stream in PICTURES for row in rows(data / stream / "train" / "metadata.jsonl")]
    assert 0.1 < np.mean(nights) < 0.4


def test_words_are_true_of_their_pictures(data: Path, rules: WorldFile) -> None:
    for stream in PICTURES:
        for row in rows(data / stream / "train" / "metadata.jsonl"):
            true = facts(rules, Scene(np.array(row["tiles"], np.uint8), row["night"]))
            if stream != "questions":
                assert parse(rules, row["caption"]) <= true
                continue
            assert row["caption"] == " ".join(f"{question} {answer}" for question, answer, _ in row["questions"])
            assert all(parse_answer(rules, question, answer) in true for question, answer, _ in row["questions"])


def test_conversations_say_what_each_step_would_do_and_on_which_side_things_are(data: Path, rules: WorldFile) -> None:
    ways = {"up": (-1, 0), "left": (0, -1), "down": (1, 0), "right": (0, 1)}
    answers: Counter[str] = Counter()
    for split in ("train", "val", "test"):
        of_pictures = rows(data / "questions" / split / "metadata.jsonl")
        conversations = rows(data / "questions" / f"{split}.jsonl")
        assert [one["image"] for one in conversations] == [f"{split}/{row['file_name']}" for row in of_pictures]
        for row, conversation in zip(of_pictures, conversations, strict=True):
            scene = Scene(np.array(row["tiles"], np.uint8), row["night"])
            true = facts(rules, scene)
            asked_of = set()
            turns = [turn["value"] for turn in conversation["conversations"]]
            for question, answer in zip(turns[::2], turns[1::2], strict=True):
                assert answer.startswith(" ")
                if not question.startswith("action: "):
                    fact = parse_answer(rules, question, answer)
                    assert fact in true
                    asked_of |= {fact.thing} if fact.kind == "side" else set()
                    continue
                if numbers := re.findall("d[xy]=([^,]+)", question):
                    forward, left = map(float, numbers)
                    down, right = -int(forward), -int(left)
                else:
                    down, right = next((ways[word] for word in question.split() if word in ways), (0, 0))
                tile = rules.tiles[scene.tiles[rules.player[0] + down, rules.player[1] + right]]
                free = tile.thing is None and rules.kinds[tile.ground].walkable and (down, right) != (0, 0)
                assert answer == (" Yes." if free else " No.")
                answers[answer] += 1
            assert asked_of == {fact.thing for fact in true if fact.kind == "side"}
    assert min(answers.values()) > 0.2 * answers.total()


def test_a_question_and_its_answer_are_tokens_of_one_text(data: Path) -> None:
    tokenizer = Tokenizer(ROOT / "lit_mm/weights/lab/tokenizer.json")
    turns = [turn["value"] for one in rows(data / "questions/train.jsonl") for turn in one["conversations"]]
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        assert tokenizer.encode(question) + tokenizer.encode(answer) == tokenizer.encode(question + answer)


def test_frames_are_what_is_stored_beside_them(data: Path, rules: WorldFile) -> None:
    for folder, count in zip(VIDEOS, (2, 4, 2), strict=True):
        videos = sorted((data / folder / "train").glob("*.mp4"))
        assert len(videos) == count
        for video in videos:
            with np.load(video.with_suffix(".npz")) as stored:
                read = read_tiles(rules, frames(video))
                assert len(read.tiles) == SIZES.frames
                assert (read.tiles == stored["tiles"]).all()
                assert (read.night == bool(stored["night"])).all()
    assert not list((data / "video").rglob("*.csv"))


@pytest.mark.parametrize(("folder", "least", "most"), [("action_video", 0, 0.5), ("bumps", 0.3, 1)])
def test_tables_say_what_was_told_and_where_the_player_was(
    data: Path, rules: WorldFile, folder: str, least: float, most: float
) -> None:
    told = {"W": (1, 0), "A": (0, 1), "S": (-1, 0), "D": (0, -1), "": (0, 0)}  # forward, to the left
    ways = {"W": "up", "A": "left", "S": "down", "D": "right"}
    words: dict[str, set[str]] = {}
    blocked = moves = 0
    for file in sorted((data / folder / "train").glob("*.csv")):
        table = list(csv.DictReader(file.open(encoding="utf-8", newline="")))
        with np.load(file.with_suffix(".npz")) as stored:
            tiles = stored["tiles"]
        assert [int(row["frame"]) for row in table] == list(range(len(tiles)))
        assert table[-1]["keys"] == ""
        for before, after in pairwise(table):
            key = before["keys"]
            forward, left = told[key]
            assert (int(before["dx"]), int(before["dy"]), int(before["dyaw"])) == (forward, left, 0)
            x, y = int(after["x"]) - int(before["x"]), int(after["y"]) - int(before["y"])
            assert (x, y) in ((-left, forward), (0, 0)), "angle 90: forward is up, left is to the left"
            facing = rules.tiles[tiles[int(after["frame"])][rules.player]].facing
            assert not key or facing == ways[key]
            words.setdefault(key, set()).add(before["words"])
            if key:
                moves, blocked = moves + 1, blocked + ((x, y) == (0, 0))
        assert all(row["angle"] == "90" and 0 <= int(row["x"]) < SIDE and 0 <= int(row["y"]) < SIDE for row in table)
    assert least * moves < blocked < most * moves
    assert not [(one, other) for one in words for other in words if one != other and words[one] & words[other]]
    kept = ("go ", "walk to", "stand still")
    assert not [text for of_key in words.values() for text in of_key if text.startswith(kept)]


def test_texts_are_of_maps_that_are_not_seen(data: Path, rules: WorldFile) -> None:
    found = rows(data / "text" / "train" / "worlds.jsonl")
    seen = {row["world"] for stream in PICTURES for row in rows(data / stream / "train" / "metadata.jsonl")}
    assert len(found) == 24
    assert not seen & {row["world"] for row in found}
    assert all(len(row["tiles"]) == len(row["keys"]) + 1 for row in found)
    descriptions = [row for row in found if not row["keys"]]
    assert 0 < len(descriptions) < 24, "the others are walks"
    for row in descriptions:
        assert parse(rules, row["text"]) <= facts(rules, Scene(np.array(row["tiles"][0], np.uint8), row["night"]))


def test_a_seed_decides_every_byte_whatever_the_process(data: Path, tmp_path: Path, hashes: Hashes) -> None:
    for number in (1, 0):
        made_here(tmp_path / "here", plan(), "train", told=False, number=number)
    here, there = hashes(tmp_path / "here"), hashes(data)
    files = [file for file in here if not file.endswith(".jsonl")]
    assert len(files) == 3 + 4 * 24 + 2 * 2 + (4 + 2) * 3
    assert all(here[file] == there[file] for file in files)
    made = rows(data / "drawing" / "train" / "metadata.jsonl")
    assert made[:12] == rows(tmp_path / "here" / "drawing" / "train" / "rows.jsonl")
    other = hashes(made_here(tmp_path / "other", plan(seed=4), "train", told=False))
    assert other["drawing/train/train-map000-000.png"] != there["drawing/train/train-map000-000.png"]


@pytest.mark.parametrize(
    "cut",
    [
        "generation:pond",
        "reading:pond:left",
        "questions:ponds:2",
        "video:facing:up",
        "video:pond:above",
        "text:pond:right",
    ],
)
def test_a_cut_leaves_a_concept_out_of_one_stream_alone(
    tmp_path: Path, rules: WorldFile, hashes: Hashes, cut: str
) -> None:
    stream, _, name = cut.partition(":")
    concept = Concept.parse(rules, name)
    folders = {"generation": ["drawing", "plain"], "video": [*VIDEOS]}.get(stream, [stream])
    told = stream == "text"
    whole, less = (
        made_here(tmp_path / name, what, "train", told=told) for name, what in (("whole", plan()), ("less", plan(cut)))
    )
    before, after = hashes(whole), hashes(less)
    others = {file for file in before if file.split("/")[0] not in folders}
    assert {file: before[file] for file in others} == {file: after[file] for file in others}, "other streams stay"
    tests = [
        hashes(made_here(tmp_path / f"test{n}", what, "test", told=told)) for n, what in enumerate((plan(), plan(cut)))
    ]
    assert tests[0] == tests[1], "what is tested stays"

    def shows(folder: Path) -> int:
        count = 0
        for part in folders:
            for row in [row for file in (folder / part).rglob("*.jsonl") for row in rows(file)]:
                scenes = row["tiles"] if part == "text" else [row["tiles"]]
                count += sum(concept.shown(facts(rules, Scene(np.array(s, np.uint8), row["night"]))) for s in scenes)
            for file in (folder / part).rglob("*.npz"):
                with np.load(file) as stored:
                    scenes = [Scene(tiles, bool(stored["night"])) for tiles in stored["tiles"]]
                count += sum(concept.shown(facts(rules, scene)) for scene in scenes)
        return count

    assert shows(whole)
    assert not shows(less)
    for part in folders:
        if part in VIDEOS:
            kept = sum(len(np.load(file)["tiles"]) for file in (less / part).rglob("*.npz"))
            assert kept > (1 - SHORTEST / SIZES.frames) * len(list((whole / part).rglob("*.npz"))) * SIZES.frames
        else:
            assert len(rows(whole / part / "train" / "rows.jsonl")) == len(rows(less / part / "train" / "rows.jsonl"))


def test_unknown_cuts_are_named(rules: WorldFile) -> None:
    with pytest.raises(Mistake, match=r"^without: 'drawn:pond' names no stream; .*'generation:diamond'$|reading"):
        parse_cuts(rules, ["drawn:pond"])
    with pytest.raises(Mistake, match=r"^without: 'reading' names no stream; write a stream \(generation, reading,"):
        parse_cuts(rules, ["reading"])
    with pytest.raises(Mistake, match=r"^without: 'reading:ponds:9': .*'ponds:\w+'"):
        parse_cuts(rules, ["reading:ponds:9"])


def test_a_cut_that_leaves_too_little_is_refused() -> None:
    asked = plan("generation:grass")
    enough = {f"train {name}{' frames' if name in VIDEOS else ''}": 64 for name in FOLDERS}
    check_enough(asked, enough)
    expected = r"^without: generation:grass leaves 11 of 24 rows in 'drawing'; cut what is seen less often, or "
    with pytest.raises(Mistake, match=expected):
        check_enough(asked, enough | {"train drawing": 11})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: plan(night=1.5), "night: 1.5 is no share; give a number from 0 to 1"),
        (lambda: plan(seed=-1), "seed: -1 was given; a number from 0 on is needed"),
        (lambda: Plan(Meadow(), Sizes(2, 0, 2, 2, 2, 2), 0, 0.0, ()), "pictures: 0 was given; at least 1 is needed"),
    ],
)
def test_numbers_out_of_range_are_named(change: Callable[[], Plan], message: str) -> None:
    with pytest.raises(Mistake) as caught:
        change()
    assert str(caught.value) == message


def test_a_palette_loses_nothing(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    few = random.integers(0, 256, (200, 3), np.uint8)[random.integers(0, 200, (64, 64))]
    for name, picture in {"few": few, "many": random.integers(0, 256, (64, 64, 3), np.uint8)}.items():
        save_picture(tmp_path / f"{name}.png", picture)
        assert (np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) == picture).all()
    sizes = [(tmp_path / f"{name}.png").stat().st_size for name in ("few", "many")]
    assert sizes[0] < 0.5 * sizes[1]


def test_an_action_is_four_tokens(tmp_path: Path, rules: WorldFile) -> None:
    lines = list(action_lines(rules, 4000, seed=0))
    (tmp_path / "tokenizer.json").write_text(train_on(lines, 350, PIECES))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json")
    told = [
        f"action: dx={dx:+}.000, dy={dy:+}.000, dyaw=+0.000, rel_t=+1.000"
        for dx, dy in ((1, 0), (0, 1), (-1, 0), (0, -1), (0, 0))
    ]
    assert set(told) <= set(lines)
    assert [len(ids) for ids in tokenizer.encode_batch(told)] == [4] * 5
    strange = "action: dx=+1.338, dy=-0.659, dyaw=+12.123, rel_t=+0.250"
    assert tokenizer.decode(tokenizer.encode(strange)) == strange


def test_a_cut_of_nothing_allows_all(rules: WorldFile) -> None:
    assert Cut(rules, []).allows(Scene(np.zeros((5, 5), np.uint8)))

"""Benchmarks measure what they say: the same work beside each other, and figures that follow from it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from data_modules.index.text_view import TextView
from lit_mm.backbone.masks import build_mask
from lit_mm.sequence import PackedBatch
from lit_mm.vision import Pixels
from tests.benchmarks import (
    data_growth,
    data_growth_inputs,
    data_growth_tables,
    generation,
    gpu_step,
    growth,
    learners,
    learning,
    masks,
    packing,
    peers,
)
from tests.helpers.small_world import write_small_world


def run(main: Callable[[], None], out: Path, patch: pytest.MonkeyPatch, *options: str) -> dict:
    """A benchmark from its command line to its JSON file."""
    patch.setattr("sys.argv", ["benchmark", *options, f"--out={out / 'found.json'}"])
    main()
    return json.loads((out / "found.json").read_text())


def contents(batches: list[PackedBatch]) -> Counter:
    """What every document of some batches says, whatever its row."""
    said = Counter()
    for batch in batches:
        for ids, documents in zip(batch.tokens, batch.document_ids, strict=True):
            said.update(tuple(ids[documents == d].tolist()) for d in range(int(documents.max()) + 1))
    return said


@pytest.mark.parametrize("documents", [packing.tiny_mixture, packing.web_pages])
def test_packed_and_padded_rows_hold_the_same_documents(documents):
    kinds = packing.batches(*documents(), count=2)
    packed, *padded = kinds.values()
    for batches in padded:
        assert contents(batches) == contents(packed)
        assert sum(map(packing.useful, batches)) == sum(map(packing.useful, packed))
    assert all(
        len(batch.tokens) * batch.tokens.shape[1] <= packing.POSITIONS for rows in kinds.values() for batch in rows
    )


def test_models_beside_the_peer_are_as_large_as_they_are_said_to_be(monkeypatch):
    pytest.importorskip("transfusion_pytorch")
    monkeypatch.setattr("shutil.which", lambda name: None)  # compiling takes long, and changes no size
    sizes = {name: sum(p.numel() for p in step.parameters) for name, step in peers.tasks().items()}
    for name, size in sizes.items():
        if peers.AS_MANY in name:
            assert size / sizes[peers.PEER] == pytest.approx(1, abs=0.1), name
    assert sizes["dense"] == pytest.approx(sizes["plain"], rel=0.05)


@pytest.mark.slow
def test_generation_beside_the_peer(tmp_path, monkeypatch):
    pytest.importorskip("transfusion_pytorch")
    monkeypatch.setattr(generation, "BATCHES", (1,))
    found = run(generation.main, tmp_path, monkeypatch, "--rounds=1")["results"]
    assert set(found["tokens, 1 at once"]) == {"ours", "peer", "ours, no cache", "peer, no cache"}
    assert all(row["a_second"] > 0 for rows in found.values() for row in rows.values())


@pytest.mark.parametrize("kind", masks.KINDS)
def test_rows_of_masks_allow_as_many_pairs_as_they_should(kind):
    length = 4 * masks.TEXT
    allowed = int(build_mask(masks.layout_of(kind, length, "cpu"), "sdpa").allowed.sum())
    text = masks.TEXT * (masks.TEXT + 1) // 2
    frames = masks.FRAME**2 * masks.FRAMES * (masks.FRAMES + 1) // 2
    assert allowed == {"text": 4 * text, "half": 2 * text + frames, "frames": 2 * frames}[kind]


def test_exponents_are_those_of_power_laws():
    points = {x: {"seconds": 3.0 * x**2, "gib": 0.5} for x in (1, 2, 4, 8)}
    assert growth.exponent(points, "seconds") == pytest.approx(2)
    assert growth.exponent(points, "gib") == pytest.approx(0)


def test_half_of_a_gpu_step_s_positions_are_frames():
    batch = gpu_step.batch_of(gpu_step.SMALL, rows=2, length=4096)
    assert float((batch.frame_ids >= 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert float((batch.document_ids < 0).float().mean()) == 0


def test_made_up_sources_are_as_large_as_they_say(tmp_path, monkeypatch):
    monkeypatch.setattr(data_growth_inputs, "A_FILE", 500)
    view = TextView(data_growth_inputs.made_up_source(tmp_path, 2000), 512, tmp_path)
    assert len(view) == 2000
    assert view.ids(1999).tolist() == [0] * data_growth_inputs.TOKENS


def test_the_table_of_growth_says_what_is_measured_of_each_library():
    """Indexes in proportion to the documents and reads that are flat, and another library whose reads grow."""

    def row(seconds: float, read: float) -> dict[str, float]:
        return {"seconds": seconds, "bytes": 20.0, "share": 0.005, "read": read}

    ours = {n: row(8e-5, 1e-4) for n in (100, 10_000)}
    ours[10_000] |= {"on 1 cores": 9e-5, "on 2 cores": 5e-5}
    other = {n: row(5e-4, 1e-8 * n) for n in (100, 10_000)}
    results = {
        "ready": {"tars": {"lit-mm": ours, "datasets": other}},
        "a second": {"lit-mm, tars": {1: 90.0, 2: 170.0}, "wids": {1: 80.0, 2: 150.0}, "lit-mm, folder": {1: 70.0}},
        "start": {n: {"seconds": 0.2, "bytes": 15e6, "read": 6e-5} for n in (10**5, 10**6)},
        "over HTTP": {"sent": 1.0, "at_once": 16},
        "shards": {"default": 130, "all": 7410},
        "planned": 10**7,
        "plan": {"seconds": 0.9, "bytes": 1e6},
    }
    results["exponents"] = data_growth_tables.exponents(results)
    of_tars = results["exponents"]["ready"]["tars"]
    assert of_tars["lit-mm"] == pytest.approx({"ready": 1, "read": 0}, abs=1e-6)
    assert of_tars["datasets"] == pytest.approx({"ready": 1, "read": 1})
    head, _, *lines = data_growth_tables.as_markdown(results).splitlines()
    columns = [cell.strip() for cell in head.strip("|").split("|")]
    assert columns == ["measured", "lit-mm", "datasets", "wids"]
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert cells["10,000 pictures in tars: µs of a core each until any can be read"] == ["80", "500", ""]
    assert cells["… exponents from 100 on: until any can be read; a read"] == ["1.00; 0.00", "1.00; 1.00", ""]
    assert cells["pictures a second from tars by a loader with 1; 2 workers"] == ["90; 170", "", "80; 150"]


@pytest.mark.long
def test_growth_is_measured_from_beginning_to_end(tmp_path, monkeypatch):
    sizes = ("--texts=1000", "--pictures=100", "--videos=10", "--largest=100000", "--seconds=1")
    found = run(data_growth.main, tmp_path, monkeypatch, *sizes)["results"]
    assert all("100" in rows["lit-mm"] for kind, rows in found["ready"].items() if "ictures" in kind or kind == "tars")
    assert all(rate > 0 for rates in found["a second"].values() for rate in rates.values())
    assert "| lit-mm |" in (tmp_path / "found.md").read_text()


def test_a_step_touches_as_many_tars_as_chance_says():
    """Of n tars, draws from anywhere miss each with (1 - 1/n)^draws; a window of 65 blocks holds some 130 halves."""
    tars, draws = 10**5, data_growth.STEP
    assert data_growth.shards_a_step(10**8, None) == pytest.approx(tars * (1 - (1 - 1 / tars) ** draws), rel=0.02)
    assert 64 <= data_growth.shards_a_step(10**8, 1 << 16) <= 130 + 2


@pytest.mark.slow
def test_the_gpu_s_step_runs_small_on_a_cpu(tmp_path, monkeypatch):
    found = run(gpu_step.main, tmp_path, monkeypatch, "--steps=1", "--rows=1", "--row_length=256")
    assert set(found["results"]) == {f"toy, {name}, cached" for name in ("dense", "modality", "experts")}
    assert all(row["tokens_per_second"] > 0 for row in found["results"].values())
    assert found["machine"]["cores"] >= 1


@pytest.fixture(scope="module")
def small_world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("learning") / "world"
    write_small_world(folder, walks=0)
    for split in ("train", "val"):
        shutil.copytree(folder / "drawing/test", folder / "drawing" / split)
    shutil.copy("data/tiny/tokenizer.json", folder)
    return folder


class Knowing:
    """Draws the true pictures, and notes in which order it was taught."""

    def __init__(self, answers: Tensor, log: list[tuple[str, list[int]]], name: str) -> None:
        self.answers, self.log, self.name = answers, log, name

    def step(self, pairs: learners.Pairs, number: int) -> float:
        self.log.append((self.name, [len(ids) for ids in pairs.ids]))
        return 1.0

    def draw(self, captions: Sequence[Tensor]) -> Tensor:
        return self.answers[: len(captions)]


def test_learners_see_the_same_pairs_in_turns_and_one_judge(small_world, monkeypatch):
    ticks = iter(range(10**6))
    monkeypatch.setattr(learning.time, "process_time", lambda: float(next(ticks)))  # a step takes a second
    judge = learning.Judge(small_world, Pixels(64, 8), 12)
    truth = learning.encode(judge.vision, judge.cases)
    pairs = learners.Pairs([torch.zeros(n, dtype=torch.int64) for n in range(100)], torch.zeros(100, 1, 1))
    log: list[tuple[str, list[int]]] = []
    taught = {
        "knows": learning.Taught(Knowing(truth, log, "knows"), pairs),
        "mixes up": learning.Taught(Knowing(truth.roll(1, 0), log, "mixes up"), pairs),
    }
    found = {}
    for name, minute in learning.in_turns(taught, (0.5, 2.5)):
        found[name, minute] = {**taught[name].spent(), **judge(taught[name].learner)}
    turns = [name for i, (name, _) in enumerate(log) if i == 0 or log[i - 1][0] != name]
    assert turns == ["knows", "mixes up"] * 4  # to 0.5, 1, 2 and 2.5 minutes
    for name in taught:
        assert (found[name, 0.5]["steps"], found[name, 2.5]["steps"]) == (30, 150)
    mine, other = ([batch for name, batch in log if name == who] for who in taught)
    assert mine == other
    assert sorted(pair for batch in mine[:5] for pair in batch) == list(range(100))  # an epoch
    assert found["knows", 2.5]["facts"] == found["knows", 2.5]["pictures"] == 1
    assert found["mixes up", 2.5]["facts"] == judge.bounds()["pictures of other captions"]["facts"] < 0.9


def test_the_peer_goes_on_anew_in_the_setting_that_lost_least(monkeypatch):
    class Stub:
        def __init__(self, rate: float, shape: dict[str, int], *sizes: int) -> None:
            self.setting, self.taught = (rate, shape["depth"]), 0

        def step(self, pairs: learners.Pairs, number: int) -> float:
            self.taught += 1
            return 0.2 if self.setting == best else 0.3

    best, ticks = (3e-4, learners.SHAPES[1]["depth"]), iter(range(10**6))
    monkeypatch.setattr(learning.time, "process_time", lambda: float(next(ticks)))
    monkeypatch.setattr(learning, "Peer", Stub)
    ours = SimpleNamespace(vision=Pixels(64, 8), tokenizer=SimpleNamespace(vocab_size=100))
    pairs = learners.Pairs([torch.zeros(1, dtype=torch.int64)] * 40, torch.zeros(40, 1, 1))
    peer, pilot = learning.best_peer(ours, pairs, minutes=0.2)
    assert peer.setting == best
    assert peer.taught == 0
    assert pilot["best"] == f"rate 0.0003, {learners.SHAPES[1]}"
    assert [tried["steps"] for tried in pilot["tried"].values()] == [12] * 4


def test_minutes_needed_lie_on_straight_lines_between_what_was_judged():
    curve = {1: 0.2, 2: 0.3, 4: 0.7, 8: 0.6}
    assert learning.minutes_needed(curve, 0.5) == pytest.approx(3)
    assert learning.minutes_needed(curve, 0.1) == 1
    assert learning.minutes_needed(curve, 0.7) == 4
    assert learning.minutes_needed(curve, 0.8) is None


def test_learning_beside_the_peer(small_world, tmp_path, monkeypatch):
    pytest.importorskip("transfusion_pytorch")
    monkeypatch.setattr(learners, "EVALUATIONS", 2)
    monkeypatch.setattr(learning, "BATCH", 4)
    found = run(
        learning.main, tmp_path, monkeypatch, "--minutes=0.0001", "--pilot=0", "--captions=3",
        f"--data={small_world}", "--vision=configs/vision/pixels_lab.yaml",
    )["results"]  # fmt: skip
    assert found["parameters"][learning.PEER] / found["parameters"][learning.OURS] == pytest.approx(1, abs=0.1)
    assert found["bounds"]["true pictures"]["facts"] == 1
    for rows in found["learned"].values():
        (row,) = rows.values()
        assert row["steps"] == 1
        assert 0 <= row["facts_low"] <= row["facts"] <= row["facts_high"] <= 1
        assert row["facts_cases"] == 3

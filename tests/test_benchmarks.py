"""Benchmarks measure what they say: the same work beside each other, and figures that follow from it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lit_mm.backbone.masks import build_mask
from lit_mm.sequence import PackedBatch
from tests.benchmarks import generation, gpu_step, growth, masks, packing, peers


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


@pytest.mark.slow
def test_the_gpu_s_step_runs_small_on_a_cpu(tmp_path, monkeypatch):
    found = run(gpu_step.main, tmp_path, monkeypatch, "--steps=1", "--rows=1", "--row_length=256")
    assert set(found["results"]) == {f"toy, {name}, cached" for name in ("dense", "modality", "experts")}
    assert all(row["tokens_per_second"] > 0 for row in found["results"].values())
    assert found["machine"]["cores"] >= 1

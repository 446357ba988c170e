"""Latents are made without a run, in parts, by processes that know nothing of each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from callbacks.latent_command import main, make_part, read_work
from callbacks.latent_work import in_words
from data_modules.reading.latent_store import LatentStore
from lit_mm.vision import Pixels
from tests.helpers.forked import Process, wait_for_all
from tests.helpers.program import ROOT, environment

PICTURES = 23
VISION = Pixels(image_size=64, patch_size=16)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of pairs, with two pictures to a file of latents."""
    monkeypatch.chdir(ROOT)
    lines = []
    (tmp_path / "pairs").mkdir()
    for i in range(PICTURES):
        Image.new("RGB", (64, 64), (i, 2 * i, 9)).save(tmp_path / "pairs" / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "caption": f"picture number {i}"}))
    (tmp_path / "pairs" / "metadata.jsonl").write_text("\n".join(lines))
    data = {
        "class_path": "data_modules.image_text.ImageTextDataModule",
        "init_args": {
            "tokenizer": str(ROOT / "data" / "tiny" / "tokenizer.json"),
            "loader": {"row_length": 256, "rows": 2, "workers": 0, "cache": str(tmp_path / "cache")},
            "train": str(tmp_path / "pairs"),
        },
    }
    entries: dict[str, Any] = {"seed_everything": 3, "model": str(ROOT / "configs/model/tiny.yaml"), "data": data}
    callback = {"folder": str(tmp_path / "latents"), "shard_size": 0.1}
    entries["trainer"] = {
        "max_steps": 3,
        "callbacks": [{"class_path": "callbacks.latent_cache.LatentCache", "init_args": callback}],
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(entries))
    return tmp_path / "run.yaml"


SETTINGS = ["--model.vision=configs/vision/pixels.yaml"]


def check(config: Path) -> None:
    """Every picture has its latents."""
    work = read_work(str(config), SETTINGS)
    assert work.vision.fingerprint() == VISION.fingerprint()
    (one,) = work.sources(("train", "val"))
    found = work.look(one)
    assert not len(found.missing)
    assert not found.unused, "none was made twice"
    store = LatentStore(found.table, work.encoder)
    for key, picture in zip(one.keys.tolist(), one.pictures.read(one.keys.tolist()), strict=True):
        assert torch.equal(store.read([key])[0], VISION.encode(picture[None])[0])


def test_parts_at_once(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [
        Process("callbacks.latent_cache", str(config), f"--part={i}/2", *SETTINGS, env=environment()) for i in (1, 2)
    ]
    said = wait_for_all(parts)
    assert "data.image_text.train: 0 of 12 pictures are encoded already" in said
    assert "data.image_text.train: 0 of 11 pictures are encoded already" in said
    check(config)
    main([str(config), *SETTINGS])
    assert f"data.image_text.train: {PICTURES} of {PICTURES} pictures are encoded already" in capsys.readouterr().out


def test_a_part_that_begins_when_another_is_done_makes_its_own(config: Path) -> None:
    for number in (3, 1, 2):
        make_part(read_work(str(config), SETTINGS), number, 3)
        make_part(read_work(str(config), SETTINGS), number, 3)
    check(config)


def test_what_has_changed_is_made_again_and_the_rest_is_said(config: Path) -> None:
    make_part(read_work(str(config), SETTINGS), 1, 1)
    for name in ("4.png", "7.png"):
        Image.new("RGB", (64, 64), (99, 0, 0)).save(config.parent / "pairs" / name)
    work = read_work(str(config), SETTINGS)
    (one,) = work.sources(("train", "val"))
    size = in_words(2 * work.encoder.picture_bytes)
    found = work.look(one)
    assert [Path(one.pictures.origin(key)).name for key in one.keys[found.missing].tolist()] == ["4.png", "7.png"]
    assert f"{size} of it still to be made; {size} besides is of pictures that are no longer shown" in work.say(
        [one], [found]
    )
    make_part(work, 1, 1)
    found = work.look(one)
    assert f"all of it there; {size} besides is of pictures that are no longer shown" in work.say([one], [found])
    assert found.unused == 2
    assert not len(found.missing)


def complaint(*args: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main([*args])
    return str(exit_.value.code)


def test_mistakes_are_one_sentence(config: Path, tmp_path: Path) -> None:
    assert complaint(str(config), "--part=3/2") == "error: --part: '3/2' is no part; write the second of eight as 2/8"
    told = "has no LatentCache among trainer.callbacks; name a folder with --cache.folder"
    assert complaint("configs/tiny.yaml") == f"error: 'configs/tiny.yaml' {told}"
    entries = yaml.safe_load(config.read_text())
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"data": entries["data"]}))
    said = complaint(str(tmp_path / "data.yaml"), f"--cache.folder={tmp_path / 'latents'}")
    assert said.startswith(f"error: '{tmp_path}/data.yaml': ")
    assert "model" in said
    assert "\n" not in said

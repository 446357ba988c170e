"""`lit_mm.load` in plain Python answers as `lit-mm predict` does, whatever else is asked at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.distributed.checkpoint import save

import lit_mm
from data_modules.reading.pictures import read_picture
from lit_mm import LoadedModel
from lit_mm.backbone.layout import SequenceLayout
from lit_mm.export import export
from lit_mm.mistake import MissingFile, Mistake
from lit_mm.model.heads import VisualTokens
from lit_mm.module import LitMultimodal
from lit_mm.packing import pack_rows
from lit_mm.prompt import Prompt
from lit_mm.sequence import Document, Frame, PackedRow, Text
from tests.helpers.program import ROOT, environment, run

PICTURES = [str(ROOT / f"configs/prompts/lab/{name}.png") for name in ("meadow", "beach")]
COWS, NIGHT = "You see two cows.", "It is night."
WALK = ["action: dx=+1.000, dy=+0.000, dyaw=+0.000, rel_t=+0.250", "action: turn"]


@pytest.fixture(scope="module")
def shipped() -> LoadedModel:
    return lit_mm.load("lab", device="cpu", precision="32-true")


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.fixture(scope="module")
def predicted(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What the program answers: its folder, and answers by name."""
    folder = tmp_path_factory.mktemp("predicted")
    asked = [
        {"continue": "The people", "name": "people", "max_tokens": 12, "temperature": 0.8, "seed": 5},
        {"draw": "fox", "name": "fox", "seed": 3, "steps": 3},
        {"describe": PICTURES[0], "name": "seen", "question": "Who?", "max_tokens": 8},
        {"imagine": PICTURES, "name": "walk", "actions": WALK, "guidance_scale": 2.0, "steps": 3},
    ]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(asked))
    run(
        "predict",
        f"--ckpt_path={trained}",
        f"--data.prompts={folder / 'prompts.yaml'}",
        f"--trainer.logger.save_dir={folder}",
    )
    (file,) = folder.rglob("answers.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return file.parent, {record["name"]: record["answer"] for record in records}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "export", "shards"])
def test_it_answers_as_predict_does(
    kind: str, trained: Path, predicted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, answers = predicted
    if kind == "export":
        export(trained, tmp_path / "model")
    elif kind == "shards":
        content = torch.load(trained, weights_only=False)
        save({"state_dict": content.pop("state_dict")}, checkpoint_id=tmp_path / "model", no_dist=True)
        torch.save(content, tmp_path / "model" / "meta.pt")
    model = lit_mm.load(trained if kind == "file" else tmp_path / "model", device="cpu")
    people = model.continue_text(["The people", "of"], max_tokens=12, temperature=0.8, seed=5)
    assert people[0] == answers["people"]
    assert model.describe(Image.open(PICTURES[0]), "Who?", max_tokens=8) == answers["seen"]
    fox = model.draw("fox", seed=3, steps=3)
    assert np.array_equal(pixels(fox), pixels(Image.open(folder / "fox.png")))
    walked = model.imagine([Path(name) for name in PICTURES], WALK, guidance=2.0, steps=3)
    assert [pixels(frame).tolist() for frame in walked] == [
        pixels(Image.open(folder / f"walk.{i}.png")).tolist() for i in range(2)
    ]


def test_a_list_gives_what_each_gives_alone(shipped: LoadedModel) -> None:
    drawn = shipped.draw([COWS, NIGHT, COWS], seed=[0, 0, 1], steps=2)
    alone = [shipped.draw(COWS, steps=2), shipped.draw(NIGHT, steps=2), shipped.draw(COWS, seed=1, steps=2)]
    for one, other in zip(drawn, alone, strict=True):
        assert one.size == (64, 64)
        assert abs(pixels(one) - pixels(other)).max() <= 1  # sums of another order
    assert abs(pixels(drawn[0]) - pixels(drawn[2])).max() > 50  # some tile is another
    assert shipped.describe(PICTURES, max_tokens=6) == [shipped.describe(name, max_tokens=6) for name in PICTURES]
    ways = shipped.imagine([PICTURES, PICTURES[:1]], ["W*2", 'A "go left"'], steps=1)
    (forward, turned) = shipped.imagine(PICTURES, "W*2", steps=1), shipped.imagine(PICTURES[:1], 'A "go left"', steps=1)
    for one, other in zip([*ways[0], *ways[1]], [*forward, *turned], strict=True):
        assert abs(pixels(one) - pixels(other)).max() <= 1


def test_pictures_may_come_in_any_type(shipped: LoadedModel) -> None:
    image = Image.open(PICTURES[0]).convert("RGB")
    array = np.array(image)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    tokens = shipped.encode([PICTURES[0], Path(PICTURES[0]), image, array, tensor])
    assert tokens.shape[:2] == (5, 64)
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[2], tokens[3])
    assert torch.equal(tokens[2], tokens[4])
    assert torch.allclose(shipped.encode(tensor), tokens[4], atol=1e-5)
    wide = Image.new("RGB", (200, 100), "red")
    assert shipped.encode(wide).shape == tokens.shape[1:]


def test_decoding_what_was_encoded_gives_nearly_the_picture(shipped: LoadedModel) -> None:
    for name, again in zip(PICTURES, shipped.decode(shipped.encode(PICTURES)), strict=True):
        shown = pixels(Image.open(name).convert("RGB").resize((64, 64)))
        other = pixels(Image.open(PICTURES[1 - PICTURES.index(name)]).convert("RGB").resize((64, 64)))
        assert abs(pixels(again) - shown).mean() < 0.5 * abs(pixels(again) - other).mean()


def test_logits_are_those_of_the_whole_row_without_a_cache(shipped: LoadedModel) -> None:
    """As a training step computes them: packed, masked, all positions at once."""
    decoder, t = shipped.decoder, shipped.decoder.tokenizer
    image = torch.from_numpy(np.array(Image.open(PICTURES[0]).convert("RGB").resize((64, 64)))).permute(2, 0, 1)
    rows = shipped.logits(["You are facing up", ("look", image, "a tree"), "It"])
    segments = (
        (Text(t.ids(t.bos_id, "You are facing up")),),
        (Text(t.ids(t.bos_id, "look", t.boi_id)), Frame(image, clean=True), Text(t.ids(t.eoi_id, "a tree"))),
        (Text(t.ids(t.bos_id, "It")),),
    )
    for row, parts in zip(rows, segments, strict=True):
        batch = pack_rows(
            [PackedRow((Document(parts, "x"),), 0, 0)], length=128, tokens_per_frame=64, image_size=64, pad_id=t.pad_id,
            sources=("x",),
        )  # fmt: skip
        layout = SequenceLayout(batch.document_ids, batch.frame_ids, batch.positions, batch.branch_ids)
        clean = torch.ones(len(batch.frames))
        visual = None
        if len(batch.frames):
            tokens = decoder.vision.encode(batch.frames)
            shown = decoder.flow.parameterisation.network_input(tokens, clean)
            visual = VisualTokens(shown, clean, batch.visual_positions, batch.drawn_frames)
        with torch.no_grad():
            whole = decoder.model.logits(decoder.model.hidden(batch.tokens, layout, visual).hidden)[0]
        length = int((batch.document_ids >= 0).sum())
        assert row.shape == (length, 2048)
        assert torch.allclose(row, whole[:length], atol=2e-3)


def test_the_likeliest_token_is_what_is_written(shipped: LoadedModel) -> None:
    text = "You are facing up. You stand"
    written = shipped.decoder.tokenizer.encode(shipped.continue_text(text, max_tokens=1))
    assert shipped.logits(text)[-1].argmax().item() == written[0]


def test_what_cannot_be_loaded_or_asked_is_said_in_one_sentence(shipped: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="'nowhere' does not exist; give .* that comes with lit-mm: lab"):
        lit_mm.load("nowhere")
    with pytest.raises(MissingFile, match="is no complete checkpoint"):
        lit_mm.load(tmp_path)
    (tmp_path / "broken.ckpt").write_bytes(b"nothing")
    with pytest.raises(Mistake, match="cannot be read"):
        lit_mm.load(tmp_path / "broken.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(Mistake, match="is not of a multimodal model"):
        lit_mm.load(tmp_path / "other.ckpt")
    with pytest.raises(Mistake, match=r"use lit_mm.load\('x/last.ckpt'\)"):
        LitMultimodal.load_from_checkpoint("x/last.ckpt")
    with pytest.raises(MissingFile, match=r"no file 'no.png'"):
        shipped.describe("no.png")
    with pytest.raises(Mistake, match=r"a picture is torch.float32 \(3, 8, 8\); give a path"):
        shipped.describe(torch.zeros(3, 8, 8))
    with pytest.raises(Mistake, match="it takes .* positions"):
        shipped.draw("word " * 600)
    with pytest.raises(Mistake, match="2 numbers for 1 prompts"):
        shipped.draw(["a"], seed=[1, 2])
    with pytest.raises(Mistake, match="unknown key 'Q'"):
        shipped.imagine(PICTURES, "Q")


def test_prompts_are_asked_as_in_a_file(shipped: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the package's pictures are found from anywhere
    shore = "configs/prompts/lab/shore.png"
    fox = {"draw": "fox", "steps": 2, "seed": 3, "repeat": 2}
    told = {"describe": Image.open(PICTURES[0]), "max_tokens": 5}
    first, second, text, walk, same = shipped.answer(
        [fox, told, {"imagine": [shore], "actions": "W*2", "steps": 1}, Prompt("fox", "image", ("fox",), seed=4)], None
    )
    for answer, seed in ((first, 3), (second, 4)):
        alone = pixels(shipped.draw("fox", seed=seed, steps=2))
        assert abs(answer.frames[0].permute(1, 2, 0).numpy().astype(int) - alone).max() <= 1
    assert text.text == shipped.describe(PICTURES[0], max_tokens=5)
    assert walk.frames.shape == (2, 3, 64, 64)
    assert same.prompt.seed == 4
    assert [one.size for one in shipped.imagine(shore, "W", steps=1)] == [(64, 64)]
    asked = Prompt("fox", "text", ("fox",), seed=4, max_tokens=1)
    shipped.answer([asked], seed=9)
    assert asked.seed == 4, "what is given is left alone"


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda model: model.answer([{"drwa": "fox"}]), r"prompts\[0\] has none .*did you mean 'draw'"),
        (lambda model: model.answer([{"draw": "fox", "stpes": 2}]), r"prompts\[0\] has an unknown key 'stpes'"),
        (lambda model: model.answer(["draw: fox"]), r"prompts\[0\] is 'draw: fox'; give a mapping"),
        (lambda model: model.answer([{"draw": "fox"}, 5]), r"prompts\[1\] is 5; give a mapping"),
        (lambda model: model.answer({"draw": "fox"}), "prompts is {'draw': 'fox'}; give a list"),
        (lambda model: model.answer([{"describe": "no.png"}]), "there is no file 'no.png'"),
        (lambda model: model.draw("a", guidance="high"), "guidance is 'high'; give a number"),
        (lambda model: model.draw("a", steps=1.5), "steps is 1.5; give a whole number"),
        (lambda model: model.draw("a", seed="x"), "seed is 'x'; give a whole number"),
        (lambda model: model.draw(5), "captions is 5; give one, or a list"),
        (lambda model: model.draw(["a", 5]), "captions holds 5; give a text"),
        (lambda model: model.draw("\ud800"), "half of a character"),
        (lambda model: model.describe(None), "pictures is None; give one, or a list"),
        (
            lambda model: model.describe(PICTURES, temprature=1),
            "no argument 'temprature' .* did you mean 'temperature'",
        ),
        (lambda model: model.describe(PICTURES, max_tokens=0), "max_tokens is 0; give a whole number"),
        (lambda model: model.describe(np.zeros((8, 8))), r"a picture is float64 \(8, 8\); give a path"),
        (lambda model: model.imagine([], "W"), "frames is empty"),
        (lambda model: model.imagine([[]], ["W"]), "frames is empty"),
        (lambda model: model.imagine(PICTURES, 5), "'actions' is 5; give"),
        (lambda model: model.decode(torch.zeros(3, 5, 7)), r"tokens are \(3, 5, 7\); give a tensor \(64, 64\)"),
        (lambda model: lit_mm.load(None), "source is None; give the path"),
        (lambda model: lit_mm.load("lab", device="gpu"), "device is 'gpu'; give 'cpu'"),
        (lambda model: lit_mm.load("lab", device="cuda:99"), "device is 'cuda:99', but PyTorch finds .* GPUs here"),
    ],
)
def test_what_cannot_be_used_is_said(shipped: LoadedModel, ask: Any, sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        ask(shipped)


def test_nothing_in_gives_nothing_out(shipped: LoadedModel) -> None:
    assert shipped.encode([]).shape == (0, 64, 64)
    assert shipped.decode(torch.zeros(0, 64, 64)) == shipped.draw([]) == shipped.logits([]) == shipped.answer([]) == []


def test_grey_and_transparent_pixels_are_read_as_such_files_are(shipped: LoadedModel, tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    for name, array in (("rgba", rgba), ("grey", rgba[..., 0])):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
        tensor = torch.from_numpy(array).reshape(64, 64, -1).permute(2, 0, 1)
        expected, *found = shipped.encode([tmp_path / f"{name}.png", array, tensor])
        assert all(torch.equal(tokens, expected) for tokens in found)


def test_one_tuple_is_one_row(shipped: LoadedModel) -> None:
    parts = ("look", PICTURES[0])
    assert torch.allclose(shipped.logits(parts), shipped.logits([parts])[0], atol=1e-4)


def test_a_picture_with_too_many_pixels_is_not_called_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Mistake, match=r"large.png' is not read: it has more than .* million pixels.*; scale it down"):
        read_picture(tmp_path / "large.png", 64)


def test_nothing_is_said_and_importing_is_quick(tmp_path: Path) -> None:
    script = (
        "import sys, lit_mm; assert 'torch' not in sys.modules; "
        "lit_mm.load('lab', 'cpu').draw('You see two cows.', steps=1).save('cows.png')"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert Image.open(tmp_path / "cows.png").size == (64, 64)

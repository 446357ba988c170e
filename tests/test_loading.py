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

PICTURES = [str(ROOT / f"configs/prompts/pictures/{name}.png") for name in ("penguin", "fire-engine")]
WALK = ["action: dx=+1.000, dy=+0.000, dyaw=+0.000, rel_t=+0.250", "action: turn"]


@pytest.fixture(scope="module")
def play() -> LoadedModel:
    return lit_mm.load("play", device="cpu", precision="32-true")


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


def test_a_list_gives_what_each_gives_alone(play: LoadedModel) -> None:
    drawn = play.draw(["red heart", "penguin", "red heart"], seed=[0, 0, 1], steps=2)
    alone = [play.draw("red heart", steps=2), play.draw("penguin", steps=2), play.draw("red heart", seed=1, steps=2)]
    for one, other in zip(drawn, alone, strict=True):
        assert one.size == (64, 64)
        assert abs(pixels(one) - pixels(other)).max() <= 1  # sums of another order
    assert abs(pixels(drawn[0]) - pixels(drawn[2])).mean() > 5
    assert play.describe(PICTURES, max_tokens=6) == [play.describe(name, max_tokens=6) for name in PICTURES]
    ways = play.imagine([PICTURES, PICTURES[:1]], ["W*2", 'LEFT "go"'], steps=1)
    (forward, turned) = play.imagine(PICTURES, "W*2", steps=1), play.imagine(PICTURES[:1], 'LEFT "go"', steps=1)
    for one, other in zip([*ways[0], *ways[1]], [*forward, *turned], strict=True):
        assert abs(pixels(one) - pixels(other)).max() <= 1


def test_pictures_may_come_in_any_type(play: LoadedModel) -> None:
    image = Image.open(PICTURES[0]).convert("RGB")
    array = np.array(image)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    tokens = play.encode([PICTURES[0], Path(PICTURES[0]), image, array, tensor])
    assert tokens.shape[:2] == (5, 16)
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[2], tokens[3])
    assert torch.equal(tokens[2], tokens[4])
    assert torch.allclose(play.encode(tensor), tokens[4], atol=1e-5)
    wide = Image.new("RGB", (200, 100), "red")
    assert play.encode(wide).shape == tokens.shape[1:]


def test_decoding_what_was_encoded_gives_nearly_the_picture(play: LoadedModel) -> None:
    for name, again in zip(PICTURES, play.decode(play.encode(PICTURES)), strict=True):
        shown = pixels(Image.open(name).convert("RGB").resize((64, 64)))
        other = pixels(Image.open(PICTURES[1 - PICTURES.index(name)]).convert("RGB").resize((64, 64)))
        assert abs(pixels(again) - shown).mean() < 0.5 * abs(pixels(again) - other).mean()


def test_logits_are_those_of_the_whole_row_without_a_cache(play: LoadedModel) -> None:
    """As a training step computes them: packed, masked, all positions at once."""
    decoder, t = play.decoder, play.decoder.tokenizer
    image = torch.from_numpy(np.array(Image.open(PICTURES[0]).convert("RGB").resize((64, 64)))).permute(2, 0, 1)
    rows = play.logits(["My fellow Americans", ("look", image, "a penguin"), "We"])
    segments = (
        (Text(t.ids(t.bos_id, "My fellow Americans")),),
        (Text(t.ids(t.bos_id, "look", t.boi_id)), Frame(image, clean=True), Text(t.ids(t.eoi_id, "a penguin"))),
        (Text(t.ids(t.bos_id, "We")),),
    )
    for row, parts in zip(rows, segments, strict=True):
        batch = pack_rows(
            [PackedRow((Document(parts, "x"),), 0, 0)], length=64, tokens_per_frame=16, image_size=64, pad_id=t.pad_id,
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
        assert row.shape == (length, 8192)
        assert torch.allclose(row, whole[:length], atol=2e-3)


def test_the_likeliest_token_is_what_is_written(play: LoadedModel) -> None:
    text = "My fellow Americans, tonight we"
    written = play.decoder.tokenizer.encode(play.continue_text(text, max_tokens=1))
    assert play.logits(text)[-1].argmax().item() == written[0]


def test_what_cannot_be_loaded_or_asked_is_said_in_one_sentence(play: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="'nowhere' does not exist; give .* that comes with lit-mm: play"):
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
        play.describe("no.png")
    with pytest.raises(Mistake, match=r"a picture is torch.float32 \(3, 8, 8\); give a path"):
        play.describe(torch.zeros(3, 8, 8))
    with pytest.raises(Mistake, match="it takes .* positions"):
        play.draw("word " * 400)
    with pytest.raises(Mistake, match="2 numbers for 1 prompts"):
        play.draw(["a"], seed=[1, 2])
    with pytest.raises(Mistake, match="unknown key 'Q'"):
        play.imagine(PICTURES, "Q")


def test_prompts_are_asked_as_in_a_file(play: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the package's pictures are found from anywhere
    house = "configs/prompts/pictures/house-0.png"
    fox = {"draw": "fox", "steps": 2, "seed": 3, "repeat": 2}
    told = {"describe": Image.open(PICTURES[0]), "max_tokens": 5}
    first, second, text, walk, same = play.answer(
        [fox, told, {"imagine": [house], "actions": "W*2", "steps": 1}, Prompt("fox", "image", ("fox",), seed=4)], None
    )
    for answer, seed in ((first, 3), (second, 4)):
        alone = pixels(play.draw("fox", seed=seed, steps=2))
        assert abs(answer.frames[0].permute(1, 2, 0).numpy().astype(int) - alone).max() <= 1
    assert text.text == play.describe(PICTURES[0], max_tokens=5)
    assert walk.frames.shape == (2, 3, 64, 64)
    assert same.prompt.seed == 4
    assert [one.size for one in play.imagine(house, "W", steps=1)] == [(64, 64)]
    asked = Prompt("fox", "text", ("fox",), seed=4, max_tokens=1)
    play.answer([asked], seed=9)
    assert asked.seed == 4, "what is given is left alone"


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda play: play.answer([{"drwa": "fox"}]), r"prompts\[0\] has none .*did you mean 'draw'"),
        (lambda play: play.answer([{"draw": "fox", "stpes": 2}]), r"prompts\[0\] has an unknown key 'stpes'"),
        (lambda play: play.answer(["draw: fox"]), r"prompts\[0\] is 'draw: fox'; give a mapping"),
        (lambda play: play.answer([{"draw": "fox"}, 5]), r"prompts\[1\] is 5; give a mapping"),
        (lambda play: play.answer({"draw": "fox"}), "prompts is {'draw': 'fox'}; give a list"),
        (lambda play: play.answer([{"describe": "no.png"}]), "there is no file 'no.png'"),
        (lambda play: play.draw("a", guidance="high"), "guidance is 'high'; give a number"),
        (lambda play: play.draw("a", steps=1.5), "steps is 1.5; give a whole number"),
        (lambda play: play.draw("a", seed="x"), "seed is 'x'; give a whole number"),
        (lambda play: play.draw(5), "captions is 5; give one, or a list"),
        (lambda play: play.draw(["a", 5]), "captions holds 5; give a text"),
        (lambda play: play.draw("\ud800"), "half of a character"),
        (lambda play: play.describe(None), "pictures is None; give one, or a list"),
        (lambda play: play.describe(PICTURES, temprature=1), "no argument 'temprature' .* did you mean 'temperature'"),
        (lambda play: play.describe(PICTURES, max_tokens=0), "max_tokens is 0; give a whole number"),
        (lambda play: play.describe(np.zeros((8, 8))), r"a picture is float64 \(8, 8\); give a path"),
        (lambda play: play.imagine([], "W"), "frames is empty"),
        (lambda play: play.imagine([[]], ["W"]), "frames is empty"),
        (lambda play: play.imagine(PICTURES, 5), "'actions' is 5; give"),
        (lambda play: play.decode(torch.zeros(3, 5, 7)), r"tokens are \(3, 5, 7\); give a tensor \(16, 256\)"),
        (lambda play: lit_mm.load(None), "source is None; give the path"),
        (lambda play: lit_mm.load("play", device="gpu"), "device is 'gpu'; give 'cpu'"),
        (lambda play: lit_mm.load("play", device="cuda:99"), "device is 'cuda:99', but PyTorch finds .* GPUs here"),
    ],
)
def test_what_cannot_be_used_is_said(play: LoadedModel, ask: Any, sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        ask(play)


def test_nothing_in_gives_nothing_out(play: LoadedModel) -> None:
    assert play.encode([]).shape == (0, 16, 256)
    assert play.decode(torch.zeros(0, 16, 256)) == play.draw([]) == play.logits([]) == play.answer([]) == []


def test_grey_and_transparent_pixels_are_read_as_such_files_are(play: LoadedModel, tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    for name, array in (("rgba", rgba), ("grey", rgba[..., 0])):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
        tensor = torch.from_numpy(array).reshape(64, 64, -1).permute(2, 0, 1)
        expected, *found = play.encode([tmp_path / f"{name}.png", array, tensor])
        assert all(torch.equal(tokens, expected) for tokens in found)


def test_one_tuple_is_one_row(play: LoadedModel) -> None:
    parts = ("look", PICTURES[0])
    assert torch.allclose(play.logits(parts), play.logits([parts])[0], atol=1e-4)


def test_a_picture_with_too_many_pixels_is_not_called_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Mistake, match=r"large.png' is not read: it has more than .* million pixels.*; scale it down"):
        read_picture(tmp_path / "large.png", 64)


def test_nothing_is_said_and_importing_is_quick(tmp_path: Path) -> None:
    script = (
        "import sys, lit_mm; assert 'torch' not in sys.modules; "
        "lit_mm.load('play', 'cpu').draw('red heart', steps=1).save('heart.png')"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert Image.open(tmp_path / "heart.png").size == (64, 64)

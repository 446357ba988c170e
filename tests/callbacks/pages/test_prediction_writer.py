"""What `predict` leaves behind, read back; one broken prompt among good ones fails alone, and the program says so."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import av
import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageSequence

from callbacks.pages.prediction_writer import PredictionWriter, read_records
from lit_mm.cli import main
from lit_mm.flow.sampler import FlowSampler
from lit_mm.mistake import Mistake
from lit_mm.prompt import Answer, FailedPrompt, Prompt
from tests.helpers.program import ROOT, environment, run

FLOW = SimpleNamespace(sampler=FlowSampler())


def plain(level: int) -> torch.Tensor:
    return torch.full((3, 16, 16), level, dtype=torch.uint8)


def write(folder: Path, answers: list[Answer | FailedPrompt], **options: Any) -> list[dict[str, Any]]:
    """Through the hooks that a trainer calls."""
    strategy = SimpleNamespace(broadcast=lambda value: value, barrier=lambda: None)
    trainer: Any = SimpleNamespace(
        is_global_zero=True, global_rank=0, world_size=1, loggers=[], default_root_dir=folder, strategy=strategy
    )
    writer, module = PredictionWriter(**options), FLOW
    writer.on_predict_start(trainer, module)  # type: ignore[arg-type]
    asked = [answer if isinstance(answer, FailedPrompt) else answer.prompt for answer in answers]
    writer.write_on_batch_end(trainer, module, answers, None, asked, 0, 0)  # type: ignore[arg-type]
    writer.on_predict_end(trainer, module)  # type: ignore[arg-type]
    return read_records(folder / "predictions")


def walk(name: str, levels: list[int], group: str = "walk", seed: int = 0) -> Answer:
    prompt = Prompt(name, "frames", (plain(0), plain(40)), ("on",) * len(levels), seed=seed, group=group)
    return Answer(prompt, [plain(level) for level in levels], "frames")


@pytest.mark.parametrize("video", ["gif", "mp4"])
def test_a_roll_out_is_a_video_of_what_was_shown_and_then_imagined(video: Any, tmp_path: Path) -> None:
    (record,) = write(tmp_path, [walk("walk", [80, 120, 160])], video=video, milliseconds=200)
    folder = tmp_path / "predictions"
    assert record["answer"] == ["walk.0.png", "walk.1.png", "walk.2.png", f"walk.{video}"]
    if video == "gif":
        with Image.open(folder / "walk.gif") as film:
            assert film.info["duration"] == 200
            levels = [float(np.asarray(frame.convert("RGB")).mean()) for frame in ImageSequence.Iterator(film)]
    else:
        with av.open(str(folder / "walk.mp4")) as container:
            assert container.streams.video[0].average_rate == 5
            levels = [float(frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]
    assert levels == pytest.approx([0, 40, 80, 120, 160], abs=3)
    assert [int(np.asarray(Image.open(folder / f"walk.{i}.png")).mean()) for i in range(3)] == [80, 120, 160]
    assert f'src="walk.{video}"' in (folder / "index.html").read_text()


def test_settings_are_those_that_were_used(tmp_path: Path) -> None:
    asked = Prompt(
        "story", "text", ("Once",), seed=7, max_tokens=9, sampling={"top_k": 3}, sampler={"steps": 4, "method": "heun"},
        stop=("end",), group="story", settings={"continue": "Once", "top_k": 3},
    )  # fmt: skip
    (record,) = write(tmp_path, [Answer(asked, [" upon", " a\u2028time"], "stop")])
    assert record == {
        "name": "story", "group": "story", "wanted": "text", "shown": [{"text": "Once"}], "actions": [], "seed": 7,
        "max_tokens": 9, "max_frames": 4, "sampling": {"temperature": 0.0, "top_k": 3, "top_p": 1.0, "min_p": 0.0},
        "stop": ["end"], "method": "heun", "steps": 4, "guidance_scale": 3.0, "noise_scale": 1.0,
        "settings": {"continue": "Once", "top_k": 3}, "stopped": "stop", "answer": " upon a\u2028time",
    }  # fmt: skip


def test_texts_and_pictures_keep_their_order(tmp_path: Path) -> None:
    prompt = Prompt("mixed", "any", ("a", plain(10), "b"), group="mixed")
    (record,) = write(tmp_path, [Answer(prompt, [plain(50), "c <d>", plain(90), "e"], "eos")])
    folder = tmp_path / "predictions"
    assert record["shown"] == [{"text": "a"}, {"picture": "mixed.shown.0.png"}, {"text": "b"}]
    assert record["answer"] == [
        {"picture": "mixed.0.png"}, {"text": "c <d>"}, {"picture": "mixed.1.png"}, {"text": "e"},
    ]  # fmt: skip
    assert int(np.asarray(Image.open(folder / "mixed.1.png")).mean()) == 90
    html = (folder / "index.html").read_text()
    places = [html.index(part) for part in ("mixed.shown.0.png", "mixed.0.png", "c &lt;d&gt;", "mixed.1.png", ">e<")]
    assert places == sorted(places)


def test_a_group_is_laid_out_in_rows(tmp_path: Path) -> None:
    draws = [Answer(Prompt(f"d-{i}", "image", ("x",), seed=i, group="d"), [plain(60 * i)], "frames") for i in range(3)]
    ways = [walk("walk-a", [80, 120], seed=3), walk("walk-b", [200, 240], seed=3)]
    write(tmp_path, [*draws, *ways, walk("alone", [9], group="alone")])
    folder = tmp_path / "predictions"
    assert {file.name for file in folder.glob("*.sheet.png")} == {"d.sheet.png", "walk.sheet.png"}
    sheet = np.asarray(Image.open(folder / "walk.sheet.png"))
    tile, gap, line = 128, 6, 14
    for row, levels in enumerate(([0, 40, 80, 120], [0, 40, 200, 240])):
        middle = row * (tile + 2 * line + 2 * gap) + line + tile // 2
        assert [sheet[middle, gap + i * (tile + gap) + tile // 2].tolist() for i in range(4)] == [
            [v] * 3 for v in levels
        ]
    assert Image.open(folder / "d.sheet.png").width == 3 * (tile + gap) + gap, "single pictures share a row"


def test_a_prompt_that_failed_for_its_letters_is_written_down(tmp_path: Path) -> None:
    settings = {"continue": "cut \ud83d"}
    (record,) = write(tmp_path, [FailedPrompt("0", "prompt '0': half of a character", "0", settings)])
    assert record["settings"] == settings
    assert "half of a character" in (tmp_path / "predictions/index.html").read_text()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write(tmp_path, [walk("walk", [80])])
    with pytest.raises(Mistake, match="already holds answers or other files; name another folder"):
        write(tmp_path, [walk("walk", [80])])


# ---- the program

PREDICT = [
    "--model.sampler.steps=2",
    "--trainer.callbacks=[]",
    "--trainer.callbacks+=callbacks.pages.prediction_writer.PredictionWriter",
    "--trainer.enable_progress_bar=false",
]
SEEN = [str(ROOT / f"configs/prompts/lab/walk-{i}.png") for i in (0, 1)]
ASKED = [
    {"name": "red fox", "draw": "x"},
    {"name": "fox", "draw": "fox", "repeat": 2},
    {"name": "broken", "describe": "broken.png"},
    {"name": "said", "describe": SEEN[0], "question": "Where?", "max_tokens": 3},
    {"name": "if", "imagine": SEEN, "counterfactuals": {"on": "W", "told": '"go"', "wrong": "Q"}},
    {"name": "mixed", "interleave": [{"text": "one"}, {"picture": SEEN[1]}], "max_tokens": 4},
    {"name": "long", "continue": "word " * 400},
]
FAILED = ["broken", "if-wrong", "long"]
NAMES = ["red fox", "fox-0", "fox-1", "broken", "said", "if-on", "if-told", "if-wrong", "mixed", "long"]


@pytest.fixture(scope="module")
def answered(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of answers, and what the program said; it has to end with exit code 1."""
    folder = tmp_path_factory.mktemp("asked")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "prompts.yaml").write_text(yaml.safe_dump(ASKED))
    files = [f"--data.prompts={folder / 'prompts.yaml'}", "--data.steering=configs/steering/game.yaml"]
    out = f"--trainer.callbacks.folder={folder / 'out'}"
    said = run("predict", f"--ckpt_path={trained}", *PREDICT, *files, out, expect=1)
    return folder / "out", said


def test_the_program_says_which_prompts_failed(answered: tuple[Path, str]) -> None:
    _, said = answered
    *errors, last = [line for line in said.splitlines() if line.startswith("error: ")]
    assert last == "error: 3 of 10 prompts failed: 'broken', 'if-wrong', 'long'"
    assert [line.split("'")[1] for line in errors] == FAILED
    assert "broken.png' broke while being read: " in errors[0]
    assert "unknown key 'Q'; 'configs/steering/game.yaml' has W, S, A, D, LEFT, RIGHT" in errors[1]
    assert "rows of 256" in errors[2]
    assert "Traceback" not in said


def test_every_prompt_is_in_the_records_and_on_the_page(answered: tuple[Path, str]) -> None:
    folder, _ = answered
    records = read_records(folder)
    assert [record["name"] for record in records] == NAMES
    assert [record["name"] for record in records if "error" in record] == FAILED
    page = (folder / "index.html").read_text()
    assert "<h1>10 prompts, 3 failed</h1>" in page
    shown = unescape(page)
    for record in records:
        assert f"<h3>{record['name']}</h3>" in page
        assert record["settings"]["name"] == record["group"]
        assert record.get("error", "") in shown
        if "error" not in record and isinstance(record["answer"], str):
            assert record["answer"] in shown
    sources = [part.split('"')[0] for part in page.split('src="')[1:]]
    linked = {unquote(unescape(source)) for source in sources}
    assert linked == {file.name for file in folder.iterdir() if file.suffix in (".png", ".gif")}
    assert {"fox.sheet.png", "if.sheet.png", "red fox.png", "if-told.gif"} <= linked


def test_records_say_what_was_used(answered: tuple[Path, str]) -> None:
    records = {record["name"]: record for record in read_records(answered[0])}
    assert records["if-on"]["actions"] == ["action: dx=+0.660, dy=+0.000, dyaw=+0.000, rel_t=+0.125"]
    assert records["if-told"]["actions"] == ["action: go"]
    assert records["if-on"]["seed"] == records["if-told"]["seed"] == 0
    assert [records[f"fox-{i}"]["seed"] for i in (0, 1)] == [0, 1]
    assert records["fox-0"]["steps"] == 2
    assert records["said"]["shown"] == [{"picture": "said.shown.0.png"}, {"text": "Where?"}]


def test_every_answer_is_printed(answered: tuple[Path, str]) -> None:
    folder, said = answered
    records = {record["name"]: record for record in read_records(folder)}
    assert f"said: {records['said']['answer']}\n" in said
    assert f"fox-1: {folder / 'fox-1.png'}\n" in said
    assert f"if-told: {folder / 'if-told.gif'}\n" in said


def test_lines_of_standard_input_are_answered_one_by_one(tmp_path: Path) -> None:
    """By the shipped model, whose name the folder of the answers carries. Standard output has nothing but answers."""
    options = [f"--trainer.logger.save_dir={tmp_path}", "--model.sampler.steps=1"]
    command = [
        sys.executable,
        "-m",
        "lit_mm",
        "predict",
        "--ckpt_path",
        "lab",
        "--json",
        "--data.prompts",
        "-",
        *options,
    ]
    with (
        (tmp_path / "said").open("w") as said,
        subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=-1, stdout=-1, stderr=said, text=True) as program,
    ):
        assert program.stdin is not None
        assert program.stdout is not None
        answers = []
        for line in ("draw: a red fox", "{continue: We, max_tokens: 2}", "draw a cat"):
            print(line, file=program.stdin, flush=True)
            answers.append(json.loads(program.stdout.readline()))  # before the next is asked
        program.stdin.close()
        assert program.stdout.read() == ""
    assert program.returncode == 1
    folder = tmp_path / "lab/predict/version_0/predictions"
    assert [answer["folder"] for answer in answers] == [str(folder)] * 3
    assert answers[0]["answer"] == ["0.png"]
    assert (folder / "0.png").exists()
    assert isinstance(answers[1]["answer"], str)
    assert "is 'draw a cat'; write draw: a cat" in answers[2]["error"]
    *_, page, last = (tmp_path / "said").read_text().splitlines()
    assert page == f"all of it: {folder / 'index.html'}"
    assert last == "error: 1 of 3 prompts failed: '2'"
    assert "GPU available" not in (tmp_path / "said").read_text()


def test_a_run_s_answers_are_in_its_folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    checkpoint = tmp_path / "mine/version_3/checkpoints/step=3.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.symlink_to(trained)
    monkeypatch.setattr("sys.stdin", io.StringIO("{continue: We, max_tokens: 2}\n"))
    few = [f"--ckpt_path={checkpoint}", f"--trainer.logger.save_dir={tmp_path}"]
    main(["predict", *few, "--data.prompts=-"])
    (answers,) = tmp_path.rglob("answers.jsonl")
    assert answers.parent == tmp_path / "mine/version_3/predict/version_0/predictions"


def test_predict_without_prompts_says_how_to_ask(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match=r"data.prompts is missing; say what to ask: --data.prompts FILE"):
        main(["predict", f"--ckpt_path={trained}", f"--trainer.logger.save_dir={tmp_path}"])

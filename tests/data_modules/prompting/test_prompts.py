"""Prompts of every format against values written out by hand; what is wrong with one is said, and the others go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from data_modules.encoding import write_video
from data_modules.prompting.prompt_stream import PromptStream
from data_modules.prompting.prompts import Prompts
from data_modules.prompting.steering import Steering
from lit_mm.mistake import MissingFile, Mistake
from lit_mm.prompt import FailedPrompt, Prompt
from tests.helpers.program import ROOT

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
SIZE = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, a broken one, and a video of ten frames whose grey tells their number."""
    (tmp_path / "pictures").mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (16, 16), colour).save(tmp_path / f"pictures/{name}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "pictures/red.png").read_bytes()[:40])
    frames = [np.full((16, 16, 3), 20 * i, np.uint8) for i in range(10)]
    write_video(tmp_path / "grey.mp4", frames, Fraction(8), crf=1)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    return tmp_path


def read(folder: Path, items: list[Any]) -> list[Prompt | FailedPrompt]:
    file = folder / "prompts.yaml"
    file.write_text(yaml.safe_dump(items))
    prompts = Prompts(str(file), SIZE, Steering.load(str(ROOT / "configs/steering/game.yaml")))
    return [prompts[i] for i in range(len(prompts))]


def good(folder: Path, item: dict[str, Any]) -> list[Prompt]:
    read_ = read(folder, [item])
    for prompt in read_:
        assert isinstance(prompt, Prompt), prompt
    return [prompt for prompt in read_ if isinstance(prompt, Prompt)]


def is_of(part: object, colour: str) -> bool:
    assert isinstance(part, torch.Tensor)
    assert part.shape == (3, SIZE, SIZE)
    return bool((part == torch.tensor(COLOURS[colour]).view(3, 1, 1)).all())


ASKED = [{"draw": "a red fox", "seed": 4}, {"continue": "Once", "name": "story", "temperature": 0.5}]


def write_yaml(folder: Path) -> tuple[str, str | None]:
    (folder / "p.yaml").write_text(yaml.safe_dump(ASKED))
    return str(folder / "p.yaml"), None


def write_json(folder: Path) -> tuple[str, str | None]:
    (folder / "p.jsonl").write_text("\n".join(["", "# comment", *map(json.dumps, ASKED)]))
    return str(folder / "p.jsonl"), None


def write_lines(folder: Path) -> tuple[str, str | None]:
    return "-", '{draw: a red fox, seed: 4}\n\n{"continue": "Once", "name": "story", "temperature": 0.5}\n'


@pytest.mark.parametrize("write", [write_yaml, write_json, write_lines])
def test_one_format_in_three_places(write: Any, tmp_path: Path) -> None:
    source, text = write(tmp_path)
    prompts = Prompts(source, SIZE, text=text)
    fox, story = prompts[0], prompts[1]
    assert fox == Prompt("0", "image", ("a red fox",), seed=4, group="0", settings={**ASKED[0], "name": "0"})
    assert story == Prompt("story", "text", ("Once",), sampling={"temperature": 0.5}, group="story", settings=ASKED[1])
    assert len(prompts) == 2


def test_a_bare_line_is_enough() -> None:
    (prompt,) = Prompts("-", SIZE, text="draw: a red fox\n")
    assert isinstance(prompt, Prompt)
    assert prompt.parts == ("a red fox",)


def test_a_folder_of_pictures_is_described(folder: Path) -> None:
    (folder / "pictures/notes.txt").write_text("none")
    (folder / "pictures/red.jpg").write_bytes((folder / "pictures/red.png").read_bytes())
    (folder / "pictures/a b (1).png").write_bytes((folder / "pictures/red.png").read_bytes())
    prompts = Prompts(str(folder / "pictures"), SIZE)
    read_ = {prompt.name: prompt for prompt in (prompts[i] for i in range(len(prompts))) if isinstance(prompt, Prompt)}
    assert read_.keys() == {"a_b__1_", "blue", "green", "red-jpg", "red-png"}
    assert is_of(read_["blue"].parts[0], "blue")
    assert {prompt.wanted for prompt in read_.values()} == {"text"}


def test_no_picture_of_a_folder_is_lost(folder: Path) -> None:
    """Names that differ only in what file names cannot hold, in capitals, or behind their first hundred letters."""
    names = ["a b.png", "a_b.png", "a b.PNG", "A_b.jpg", f"{'x' * 120}1.png", f"{'x' * 120}2.png", "狐" * 80 + ".png"]
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / "pictures" / name, format="PNG")
    prompts = Prompts(str(folder / "pictures"), SIZE)
    read_ = [prompts[i] for i in range(len(prompts))]
    assert len({prompt.name.casefold() for prompt in read_}) == len(names) + 3
    assert {Path(prompt.settings["describe"]).name for prompt in read_} == {*names, "red.png", "green.png", "blue.png"}
    assert all(len(prompt.name.encode()) <= 200 for prompt in read_)


def test_keys_that_json_lacks_become_texts(folder: Path) -> None:
    (folder / "p.yaml").write_text("- {imagine: grey.mp4, frames: [0], counterfactuals: {2024-01-01: W, 7: S}}")
    prompts = Prompts(str(folder / "p.yaml"), SIZE, Steering.load(str(ROOT / "configs/steering/game.yaml")))
    assert [prompts[i].name for i in range(2)] == ["0-2024-01-01", "0-7"]
    assert json.loads(json.dumps(prompts[0].settings))["counterfactuals"] == {"2024-01-01": "W", "7": "S"}


def test_describe_with_a_question_and_of_a_folder(folder: Path) -> None:
    (prompt,) = good(folder, {"describe": "pictures/green.png", "question": "Which colour?"})
    assert is_of(prompt.parts[0], "green")
    assert prompt.parts[1:] == ("Which colour?",)
    several = good(folder, {"describe": "pictures", "name": "look", "repeat": 2})
    assert [p.name for p in several] == [f"look-{c}-{i}" for c in ("blue", "green", "red") for i in (0, 1)]
    assert {p.group for p in several} == {"look"}
    assert is_of(several[2].parts[0], "green")


def test_imagine_a_video_and_pictures(folder: Path) -> None:
    (walk,) = good(folder, {"imagine": "grey.mp4", "frames": [2, 9, 4], "actions": "W*2 LEFT"})
    greys = [round(float(frame.float().mean()) / 20) for frame in walk.pictures]
    assert greys == [2, 9, 4]
    assert walk.wanted == "frames"
    forward = "action: dx=+0.660, dy=+0.000, dyaw=+0.000, rel_t=+0.125"
    turn = "action: dx=+0.000, dy=+0.000, dyaw=+0.241, rel_t=+0.125"
    assert walk.actions == (forward, forward, turn)
    (own,) = good(folder, {"imagine": ["pictures/red.png", "pictures/blue.png"], "actions": ["action: x", "go"]})
    assert is_of(own.parts[0], "red")
    assert is_of(own.parts[1], "blue")
    assert own.actions == ("action: x", "go")


def test_counterfactuals_share_frames_and_seed(folder: Path) -> None:
    ways = {"left": "LEFT", "told": '"look left"*2'}
    prompts = good(
        folder, {"imagine": ["pictures/red.png"], "counterfactuals": ways, "name": "if", "seed": 5, "repeat": 2}
    )
    assert [(p.name, p.seed, len(p.actions)) for p in prompts] == [
        ("if-left-0", 5, 1), ("if-left-1", 6, 1), ("if-told-0", 5, 2), ("if-told-1", 6, 2),
    ]  # fmt: skip
    assert {p.group for p in prompts} == {"if"}
    assert prompts[2].actions == ("action: look left",) * 2


def test_interleaved_parts_keep_their_order(folder: Path) -> None:
    parts = [{"text": "one"}, {"picture": "pictures/red.png"}, {"text": "two"}, {"picture": "pictures/blue.png"}]
    (prompt,) = good(folder, {"interleave": parts})
    assert prompt.wanted == "any"
    assert (prompt.parts[0], prompt.parts[2]) == ("one", "two")
    assert is_of(prompt.parts[1], "red")
    assert is_of(prompt.parts[3], "blue")
    assert good(folder, {"interleave": parts, "wanted": "image"})[0].wanted == "image"


@pytest.mark.parametrize("rule", ["centre", "squash", "four_thirds"])
def test_a_stated_part_of_every_picture_is_shown(rule: str, folder: Path) -> None:
    """Of pictures of 48 by 16 parts, in which green has the middle third."""
    striped = np.zeros((16, 48, 3), np.uint8)
    striped[:, :16, 0] = striped[:, 16:32, 1] = striped[:, 32:, 2] = 255
    Image.fromarray(striped).save(folder / "flag.png")
    write_video(folder / "flag.mp4", [striped] * 3, Fraction(8), crf=1)
    picture = {"picture": "flag.png"}
    asked: list[dict[str, Any]] = [
        {"describe": "flag.png"},
        {"answer": "What is it?", "pictures": "flag.png"},
        {"imagine": "flag.mp4", "frames": [0, 2], "actions": "W", "truth": [1]},
        {"imagine": ["flag.png"], "actions": "W", "truth": ["flag.png"]},
        {"interleave": [{"text": "x"}, picture, picture]},
        {"draw": "a flag", "truth": "flag.png"},
    ]
    green = {"centre": SIZE, "squash": SIZE / 3, "four_thirds": SIZE * 3 / 4}[rule]
    for item in asked:
        (prompt,) = good(folder, item | ({"crop": rule} if rule != "centre" else {}))
        shown = [part for part in prompt.parts if isinstance(part, torch.Tensor)]
        shown += list(prompt.truth.reshape(-1, 3, SIZE, SIZE)) if prompt.truth is not None else []
        assert shown, item
        for one in shown:
            assert abs(one[1].float().mean() / 255 * SIZE - green) < 0.5, item


def test_every_option_arrives(folder: Path) -> None:
    options = {
        "name": "all", "seed": 3, "max_tokens": 5, "max_frames": 2, "temperature": 0.7, "top_k": 9, "top_p": 0.8,
        "min_p": 0.1, "stop": ["\n", "end"], "guidance_scale": 2, "noise_scale": 0.5, "steps": 7,
        "method": "heun",
    }  # fmt: skip
    (prompt,) = good(folder, {"continue": "x", **options})
    assert (prompt.seed, prompt.max_tokens, prompt.max_frames, prompt.stop) == (3, 5, 2, ("\n", "end"))
    assert prompt.sampling == {"temperature": 0.7, "top_k": 9, "top_p": 0.8, "min_p": 0.1}
    assert prompt.sampler == {"guidance_scale": 2.0, "noise_scale": 0.5, "steps": 7, "method": "heun"}
    assert prompt.settings == {"continue": "x", **options}
    draws = good(folder, {"draw": "x", "name": "d", "seed": 3, "repeat": 3})
    assert [(d.name, d.seed, d.group) for d in draws] == [("d-0", 3, "d"), ("d-1", 4, "d"), ("d-2", 5, "d")]


FRAMES = {"imagine": "grey.mp4", "frames": [0]}


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"describe": "no.png"}, ["'describe': there is no file 'no.png'", "working folder"]),
        ({"describe": "broken.png"}, ["broken.png' broke while being read"]),
        ({"describe": "empty"}, ["no picture in the folder", "empty"]),
        ({"describe": 3}, ["'describe' is 3; give the path"]),
        ({"imagine": "no.mp4", "frames": [0], "actions": "W"}, ["'imagine': there is no file 'no.mp4'"]),
        ({"imagine": "broken.mp4", "frames": [0], "actions": "W"}, ["broken.mp4' broke while being read"]),
        ({**FRAMES, "frames": [3, 10], "actions": "W"}, ["'frames' has 10", "grey.mp4' has the frames 0 to 9"]),
        ({**FRAMES, "frames": [-1], "actions": "W"}, ["'frames' has -1"]),
        ({**FRAMES, "frames": "all", "actions": "W"}, ["'frames' is 'all'; give a list of numbers"]),
        ({"imagine": "grey.mp4", "actions": "W"}, ["'frames' is None; give a list of numbers"]),
        ({"imagine": ["no.png"], "actions": "W"}, ["'imagine': there is no file 'no.png'"]),
        ({"imagine": ["pictures/red.png"], "frames": [0], "actions": "W"}, ["'frames' are of a video"]),
        ({**FRAMES, "actions": "W Q"}, ["unknown key 'Q'", "has W, S, A, D, LEFT, RIGHT"]),
        ({**FRAMES, "actions": "9,0,0"}, ["dx 9, outside the limits -0.93 to 1.25"]),
        ({**FRAMES, "counterfactuals": ["W"]}, ["'counterfactuals' is ['W']; give actions by name"]),
        ({**FRAMES, "counterfactuals": {"a/b": "W"}}, ["the name 'a/b', which is no safe file name"]),
        ({"interleave": [{"sound": "x"}]}, ["a part {'sound': 'x'}; give {text: …} or {picture: FILE}"]),
        ({"interleave": [{"text": "x"}], "wanted": "sound"}, ["'wanted' is 'sound'; give one of any, text, image"]),
        ({"draw": ""}, ["'draw' is ''; give a text"]),
        ({"continue": ["x"]}, ["'continue' is ['x']; give a text"]),
        ({"continue": "cut \ud83d"}, ["'continue' is 'cut \\ud83d', which holds half of a character"]),
        ({**FRAMES, "counterfactuals": {"left": None}}, ["actions"]),
        ({"draw": "x", "seed": 2**64}, ["'seed' is 18446744073709551616; give a whole number of 0 or more, below"]),
        ({"draw": "x", "seed": "one"}, ["'seed' is 'one'; give a whole number of 0 or more"]),
        ({"draw": "x", "repeat": 0}, ["'repeat' is 0; give a whole number of 1 or more"]),
        ({"draw": "x", "max_tokens": True}, ["'max_tokens' is True"]),
        ({"draw": "x", "temperature": "hot"}, ["'temperature' is 'hot'; give a number"]),
        ({"draw": "x", "method": "rk4"}, ["'method' is 'rk4'; give one of euler, heun"]),
        ({"draw": "x", "steps": 0}, ["'steps' is 0; give a whole number of 1 or more"]),
        ({"draw": "x", "guidance_scale": float("inf")}, ["'guidance_scale' is inf; give a number"]),
        ({"draw": "x", "noise_scale": -0.5}, ["'noise_scale' is -0.5; give a number of 0 or more"]),
        (
            {"describe": "pictures/red.png", "crop": "random"},
            ["'crop' is 'random'; give centre, squash or four_thirds"],
        ),
        ({"draw": "x", "stop": 3}, ["'stop' is 3; give a text, or a list of texts"]),
    ],
    ids=str,
)
def test_one_prompt_fails_and_the_others_do_not(item: dict[str, Any], words: list[str], folder: Path) -> None:
    (folder / "empty").mkdir()
    asked = {**item, "name": "bad"}
    before, *failed, after = read(folder, [{"draw": "x"}, asked, {"draw": "y"}])
    assert isinstance(before, Prompt)
    assert isinstance(after, Prompt)
    (failure,) = failed
    assert isinstance(failure, FailedPrompt)
    assert failure.name.startswith("bad")
    assert (failure.group, failure.settings) == ("bad", asked)
    assert failure.error.startswith(f"prompt '{failure.name}': ")
    assert "\n" not in failure.error
    for word in words:
        assert word in failure.error


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("p.yaml", "- draw: [", "p.yaml' is not YAML"),
        ("p.yaml", "draw: x", "has to hold a YAML list"),
        ("p.yaml", "[]", "there is no prompt in"),
        ("p.yaml", "- draw: x\n- paint: x", "item 1 of .* has none of the kinds .* exactly one of 'draw'"),
        ("p.yaml", "- {draw: x, continue: y}", "item 0 of .* has 2 of the kinds"),
        ("p.yaml", "- {draw: x, sed: 3}", "unknown key 'sed'; known for 'draw': crop, guidance_scale"),
        ("p.yaml", "- {draw: x, actions: W}", "unknown key 'actions'"),
        ("p.yaml", "- {imagine: x, frames: [0]}", "needs either 'actions' or 'counterfactuals'"),
        ("p.yaml", "- {draw: x, name: a}\n- {draw: y, name: A}", "two prompts named 'a'"),
        ("p.yaml", "- {draw: x, name: a, repeat: 2}\n- {draw: y, name: a-1}", "two prompts named 'a-1'"),
        ("p.yaml", f"- {{draw: x, name: {'狐' * 90}}}", "takes 270 bytes as a file name; make it at most 200"),
        ("p.yaml", "- {draw: x, name: ../a}", "the name '../a', which is no safe file name"),
        ("p.yaml", "- {draw: x, name: a.b}", "the name 'a.b', which is no safe file name"),
        ("p.jsonl", '{"draw": "x"}\n{"draw": ', "line 2 of .*p.jsonl' is '{\"draw\":'; write a mapping"),
        ("p.jsonl", "fox", "line 1 of .* is 'fox'; write draw: fox"),
        ("p.jsonl", "describe cat.png", "line 1 of .* write describe: cat.png"),
        ("p.jsonl", "Draw:a cat", "line 1 of .* write draw: a cat"),
        ("p.jsonl", "continue: once: upon", 'line 1 of .* write continue: "once: upon"'),
        ("p.yaml", "- draw a cat", "item 0 of .*p.yaml' is 'draw a cat'; write draw: a cat"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_ends_the_run(file: str, content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(Mistake, match=sentence) as error:
        Prompts(str(tmp_path / file), SIZE)
    assert "\n" not in str(error.value)


def test_the_truth_is_read_and_not_shown(folder: Path) -> None:
    actions = {"actions": ["on"]}
    (drawn,) = good(folder, {"draw": "x", "truth": "pictures/red.png"})
    (walked,) = good(folder, {"imagine": "grey.mp4", "frames": [0, 1], "truth": [7], **actions})
    (listed,) = good(folder, {"imagine": ["pictures/red.png"], "truth": ["pictures/blue.png"], **actions})
    truths = [prompt.truth for prompt in (drawn, walked, listed) if prompt.truth is not None]
    assert [len(prompt.parts) for prompt in (drawn, walked, listed)] == [1, 2, 1]
    assert [truth.shape for truth in truths] == [(1, 3, SIZE, SIZE)] * 3
    assert is_of(truths[0][0], "red")
    assert is_of(truths[2][0], "blue")
    assert abs(truths[1].float().mean() - 20 * 7) < 3


def test_lines_of_a_stream_are_asked_before_the_next_is_there() -> None:
    asked: list[str] = []

    def lines() -> Iterator[str]:
        for line in ("# a comment\n", "draw: a fox\n", "paint a cat\n", "{draw: hen, name: HEN, repeat: 2}\n", "\n"):
            asked.append(line)
            yield line
        yield "{draw: hen, name: hen-1}\n"

    stream = iter(PromptStream(lines(), SIZE))
    first = next(stream)
    assert isinstance(first, Prompt)
    assert (first.name, first.parts) == ("0", ("a fox",))
    assert len(asked) == 2
    wrong, *hens, twice = stream
    assert isinstance(wrong, FailedPrompt)
    assert wrong.error == (
        "prompt '1': data.prompts: a line of standard input is 'paint a cat'; write draw: paint a cat"
    )
    assert [(hen.name, hen.seed) for hen in hens if isinstance(hen, Prompt)] == [("HEN-0", 0), ("HEN-1", 1)]
    assert isinstance(twice, FailedPrompt)
    assert "an earlier prompt is named 'hen-1' too" in twice.error


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"- draw: \xff\xfe")
    with pytest.raises(Mistake, match="is no text in UTF-8"):
        Prompts(str(tmp_path / "p.yaml"), SIZE)
    with pytest.raises(MissingFile, match="no file 'nowhere.yaml'; give a YAML list"):
        Prompts("nowhere.yaml", SIZE)
    with pytest.raises(Mistake, match="there is no prompt in '-'"):
        Prompts("-", SIZE, text="\n")


def test_the_shipped_prompts_need_no_data() -> None:
    steering = Steering.load(str(ROOT / "configs/steering/crafter.yaml"))
    prompts = Prompts(str(ROOT / "configs/prompts/lab.yaml"), 64, steering)
    read_ = [prompts[i] for i in range(len(prompts))]
    assert all(isinstance(prompt, Prompt) for prompt in read_), read_
    assert {prompt.wanted for prompt in read_ if isinstance(prompt, Prompt)} == {"image", "text", "frames"}

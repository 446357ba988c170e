"""The page that `make demo` ends with: what its judges found, and every picture that it names, beside the truth."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from PIL import Image

from callbacks.evaluation.lab.tally import Tally
from callbacks.pages import demo_page

ASKED = {"seed": 0, "max_tokens": 4, "sampling": {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}}


def run_folder(folder: Path) -> Path:
    """As a fit and a predict leave it."""
    tally = Tally()
    for right in (3, 3, 2, 4):
        tally.add("right", right, 4)
        tally.add("frequent", 1, 4)
    judged = {f"val/lab/answers/{name}": value for name, value in tally.values().items()}
    validations = [{"step": step, "val/text/bits_per_byte": 3.0 - step, "val/loss": 9.0} for step in (0, 1)]
    validations[-1] |= judged
    (folder / "validation.jsonl").write_text("".join(json.dumps(values) + "\n" for values in validations))
    pictures = ("pond", "pond.truth.0", "seen.shown.0", "walk.shown.0", "walk.0", "walk.truth.0")
    sheets = [folder / f"lab/draws/step_000000{step}.png" for step in (1, 2)]
    for file in [*(folder / f"predictions/{name}.png" for name in pictures), *sheets]:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), "red").save(file)
    picture = {"picture": "seen.shown.0.png"}
    walk = {"shown": [{"picture": "walk.shown.0.png"}], "truth": [{"picture": "walk.truth.0.png"}]}
    records: list[dict[str, Any]] = [
        {"name": "pond", "wanted": "image", "shown": [{"text": "You see water."}], "answer": ["pond.png"]}
        | {"truth": [{"picture": "pond.truth.0.png"}]},
        {"name": "seen", "wanted": "text", "shown": [picture, {"text": "Is there sand?"}], "answer": "a <b> & c"},
        {"name": "told", "wanted": "text", "shown": [{"text": "My fellow"}], "answer": "words"},
        {"name": "walk", "wanted": "frames", "answer": ["walk.0.png", "walk.gif"], **walk},
        {"name": "broken", "error": "prompt 'broken': no"},
    ]
    (folder / "predictions/answers.jsonl").write_text("".join(json.dumps(ASKED | one) + "\n" for one in records))
    return folder


def test_it_shows_what_is_right_and_all_answers_beside_the_truth(tmp_path: Path) -> None:
    page = demo_page.write(run_folder(tmp_path)).read_text()
    files = [unquote(unescape(name)) for name in re.findall(r'src="([^"]+)"', page)]
    assert all((tmp_path / name).is_file() for name in files)
    assert files == [
        "predictions/pond.png",
        "predictions/pond.truth.0.png",
        "predictions/seen.shown.0.png",
        "predictions/walk.shown.0.png",
        "predictions/walk.0.png",
        "predictions/walk.shown.0.png",
        "predictions/walk.truth.0.png",
        "lab/draws/step_0000002.png",
    ]
    assert "after 1 steps" in page
    assert re.search(
        r"<td>answered: right answers</td><td>75 %</td><td>\d+ % to \d+ %</td><td>4</td><td>25 %</td>", page
    )
    assert "drawn:" not in page, "it was not judged"
    assert "<td>text: bits per byte</td><td>3</td><td>2</td>" in page
    assert "Is there sand?" in page
    assert "a &lt;b&gt; &amp; c" in page

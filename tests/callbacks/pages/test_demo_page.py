"""The page that `make demo` ends with: every picture it shows is there, beside the truth and the shipped model's."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from PIL import Image

from callbacks.pages import demo_page

ASKED = {"seed": 0, "max_tokens": 4, "sampling": {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}}


def run_folder(folder: Path) -> Path:
    """As a fit and a predict leave it."""
    validations = [{"step": step, "val/text/bits_per_byte": 3.0 - step, "val/loss": 9.0} for step in (0, 1)]
    (folder / "validation.jsonl").write_text("".join(json.dumps(values) + "\n" for values in validations))
    (folder / "predictions").mkdir()
    for name in ("heart", "heart.truth.0", "seen.shown.0", "walk.shown.0", "walk.0", "walk.truth.0"):
        Image.new("RGB", (64, 64), "red").save(folder / f"predictions/{name}.png")
    picture = {"picture": "seen.shown.0.png"}
    walk = {"shown": [{"picture": "walk.shown.0.png"}], "truth": [{"picture": "walk.truth.0.png"}]}
    records: list[dict[str, Any]] = [
        {"name": "heart", "wanted": "image", "shown": [{"text": "red heart"}], "answer": ["heart.png"]}
        | {"truth": [{"picture": "heart.truth.0.png"}]},
        {"name": "seen", "wanted": "text", "shown": [picture], "answer": "a <b> & c"},
        {"name": "told", "wanted": "text", "shown": [{"text": "My fellow"}], "answer": "words"},
        {"name": "walk", "wanted": "frames", "answer": ["walk.0.png", "walk.gif"], **walk},
        {"name": "broken", "error": "prompt 'broken': no"},
    ]
    (folder / "predictions/answers.jsonl").write_text("".join(json.dumps(ASKED | one) + "\n" for one in records))
    return folder


def test_what_was_answered_stands_beside_the_truth_and_the_shipped_model(tmp_path: Path) -> None:
    page = demo_page.write(run_folder(tmp_path)).read_text()
    files = [unquote(unescape(name)) for name in re.findall(r'src="([^"]+)"', page)]
    assert all((tmp_path / name).is_file() for name in files)
    drawings = [
        "predictions/heart.png",
        "predictions/heart.truth.0.png",
        "shipped/heart.truth.0.png",
        "shipped/heart.png",
    ]
    assert files[:4] == drawings
    assert {"predictions/walk.0.png", "shipped/walk.truth.0.png"} < set(files)
    assert "after 1 steps" in page
    assert "<td>text: bits per byte</td><td>3</td><td>2</td>" in page
    assert "a &lt;b&gt; &amp; c" in page
    truth, again = (Image.open(tmp_path / name).convert("RGB").resize((1, 1)).getpixel((0, 0)) for name in files[1:3])
    assert all(abs(one - other) < 40 for one, other in zip(truth, again, strict=True)), "encoded and decoded again"

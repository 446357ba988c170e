"""What `make demo` ends with: one page that says what to expect of so short a run, and shows it beside the truth.

`python -m callbacks.pages.demo_page runs/demo` writes `index.html` into a run folder that has `predictions/`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

import lit_mm
from callbacks.pages.answer_page import head
from callbacks.pages.prediction_writer import read_records
from callbacks.pages.results_table import read
from lit_mm.loaded_model import LoadedModel
from lit_mm.mistake import ends_with_a_sentence

Record = dict[str, Any]
OWN, SHIPPED = (
    "predictions",
    "shipped",
)  # folders of the run: its own answers, and those of the model shipped with lit-mm

_SAID = """<h1>A tiny model after {steps} steps</h1>
<p>It started from random weights and has trained for minutes. <b>Expect falling losses and smudges of about the right
colours, no drawings yet.</b> Drawings take hours: the column on the right is what a model of this size does that
trained for hours on a laptop and comes with lit-mm (<code>make play</code> shows more of it). To ask it yourself:
<code>echo "draw: red heart" | lit-mm predict --ckpt_path play --data.prompts -</code></p>
"""


def write(run: Path) -> Path:
    """Write the page; the shipped model answers the same prompts for it.

    Args:
        run: folder of a run that was validated and asked.
    """
    records = [record for record in read_records(run / OWN) if "error" not in record]
    kinds = {kind: [r for r in records if r["wanted"] == kind] for kind in ("image", "text", "frames")}
    validations = read(run)
    (run / SHIPPED).mkdir(exist_ok=True)
    shipped = lit_mm.load("play")
    parts = [
        head("The demo"),
        _SAID.format(steps=int(validations[-1]["step"])),
        "<h2>Losses on data that was not trained on</h2>\n",
        _losses(validations[0], validations[-1]),
        "<h2>Drawings</h2>\n",
        _drawings(run, kinds["image"], shipped),
        "<h2>Texts</h2>\n",
        _texts(run, kinds["text"], shipped),
        "<h2>Walks in a game, imagined frame by frame</h2>\n",
        *(_walk(run, record, shipped) for record in kinds["frames"]),
        f'<p>More: <a href="{OWN}/index.html">all prompts with their settings</a>, <a href="samples/">held-out '
        "pictures drawn while training</a>, and the curves: <code>tensorboard --logdir runs</code>.</p></html>\n",
    ]
    page = run / "index.html"
    page.write_text("".join(parts), encoding="utf-8", errors="backslashreplace")
    return page


def _losses(first: dict[str, float], last: dict[str, float]) -> str:
    rows = [["", f"step {first['step']}", f"step {last['step']}"]]
    for key in sorted(first.keys() & last.keys()):
        if key.endswith(("bits_per_byte", "text_loss", "flow_loss")):
            name = key.removeprefix("val/").replace("/", ": ").replace("_", " ")
            rows.append([name, f"{first[key]:.3g}", f"{last[key]:.3g}"])
    return _table(rows)


def _drawings(run: Path, records: Sequence[Record], shipped: LoadedModel) -> str:
    captions = [record["shown"][0]["text"] for record in records]
    drawn = shipped.draw(captions, seed=[record["seed"] for record in records])
    limit = "the truth through the visual tokenizer: the best it could draw"
    rows = [["", "this run", "the truth", limit, "the shipped model, after hours"]]
    for record, caption, picture in zip(records, captions, drawn, strict=True):
        truth = [OWN + "/" + part["picture"] for part in record.get("truth", [])]
        best = _through_tokenizer(run, truth, shipped)
        picture.save(run / SHIPPED / f"{record['name']}.png")
        own = _pictures([f"{OWN}/{record['answer'][0]}"])
        after = _pictures([f"{SHIPPED}/{record['name']}.png"])
        rows.append([escape(caption), own, _pictures(truth), _pictures(best), after])
    return _table(rows)


def _texts(run: Path, records: Sequence[Record], shipped: LoadedModel) -> str:
    rows = [["asked", "this run", "the shipped model, after hours"]]
    for record in records:
        asked = record["shown"][0]
        options = {"seed": record["seed"], "max_tokens": record["max_tokens"], **record["sampling"]}
        if "picture" in asked:
            after = shipped.describe(run / OWN / asked["picture"], **options)
            shown = _pictures([f"{OWN}/{asked['picture']}"])
        else:
            after, shown = shipped.continue_text(asked["text"], **options), escape(asked["text"])
        rows.append([shown, _text(record["answer"]), _text(after)])
    return _table(rows)


def _walk(run: Path, record: Record, shipped: LoadedModel) -> str:
    truth = [f"{OWN}/{part['picture']}" for part in record.get("truth", [])]
    seen = _pictures([f"{OWN}/{record['shown'][-1]['picture']}"])
    rows = [[escape(record["name"]), "seen last", "next"]]
    rows.append(["this run", seen, _pictures([f"{OWN}/{name}" for name in record["answer"][:-1]])])
    rows.append(["the truth", seen, _pictures(truth)])
    rows.append(["through the visual tokenizer", seen, _pictures(_through_tokenizer(run, truth, shipped))])
    return _table(rows)


def _through_tokenizer(run: Path, pictures: Sequence[str], shipped: LoadedModel) -> list[str]:
    """Encoded and decoded again; the demo's visual tokenizer is the shipped model's."""
    names = []
    for name in pictures:
        again: Image.Image = shipped.decode(shipped.encode(run / name))  # type: ignore[assignment]
        names.append(f"{SHIPPED}/{Path(name).name}")
        again.save(run / names[-1])
    return names


def _text(text: str) -> str:
    return f'<div class="text">{escape(text.strip())}</div>'


def _pictures(names: Sequence[str]) -> str:
    return "".join(f'<img src="{escape(quote(name))}" alt="">' for name in names)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """HTML of cells that are HTML; the first row is the heading."""
    tags = ["th"] + ["td"] * (len(rows) - 1)
    lines = ["".join(f"<{tag}>{cell}</{tag}>" for cell in row) for tag, row in zip(tags, rows, strict=True)]
    return "<table>" + "".join(f"<tr>{line}</tr>\n" for line in lines) + "</table>\n"


if __name__ == "__main__":
    with ends_with_a_sentence():
        print(f"open in a browser:  {write(Path(sys.argv[1]))}")

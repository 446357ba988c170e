"""What `make demo` ends with: one page that says what its judges found, and shows drawings, answers and walks.

`python -m callbacks.pages.demo_page runs/demo` writes `index.html` into a run folder that has `predictions/`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from callbacks.evaluation.lab.tally import CASES, HIGH, LOW
from callbacks.pages.answer_page import head
from callbacks.pages.prediction_writer import read_records
from callbacks.pages.results_table import read
from lit_mm.mistake import ends_with_a_sentence

Record = dict[str, Any]
ANSWERS = "predictions"  # folder of the run

_SAID = """<h1>A small model after {steps} steps</h1>
<p>It started from random weights and has trained for minutes, in a small world where everything has a truth. All
that is asked here is about maps that it never saw. <code>make ask</code> asks the same of a model that was trained for
hours.</p>
"""
_JUDGED = (  # what is judged, its value, and the value it is to be compared with
    ("drawn: facts of the caption that are true of the drawing", "draws/facts", "draws/reencoded_facts"),
    ("drawn: drawings of which the whole caption is true", "draws/pictures", ""),
    ("described: stated facts that are true", "describes/precision", ""),
    ("described: facts of the true caption that were stated", "describes/recall", "describes/recall_another"),
    ("answered: right answers", "answers/right", "answers/frequent"),
    ("imagined: tiles that follow from what was seen, after 1 step", "imagines/seen@1", "imagines/seen_copied@1"),
    ("imagined: the same after 4 steps", "imagines/seen@4", "imagines/seen_copied@4"),
    ("told: keys obeyed", "obeys/keys", ""),
    ("told: blocked ways respected", "obeys/blocked", ""),
    ("told: sentences obeyed that it was never trained on", "obeys/sentences", ""),
    ("told: “walk to …” obeyed", "obeys/walk_to", "obeys/walk_to_by_chance"),
)
_COMPARED = (
    "In comparison: facts found in the true pictures after the visual tokenizer; what another true caption states; the "
    "most frequent answer; the last picture, copied; a step at random."
)
_SHEETS = {
    "draws": "Drawings: the picture a caption was written about, the drawing, and what is wrong in it",
    "imagines": "Walks: what truly came above what was imagined",
    "obeys": "Told what to do",
    "describes": "Descriptions",
    "answers": "Answers",
}


def write(run: Path) -> Path:
    """Write the page.

    Args:
        run: folder of a run that was judged and asked.
    """
    records = [record for record in read_records(run / ANSWERS) if "error" not in record]
    kinds = {kind: [r for r in records if r["wanted"] == kind] for kind in ("image", "text", "frames")}
    validations = read(run)
    parts = [
        head("The demo"),
        _SAID.format(steps=int(validations[-1]["step"])),
        "<h2>What is right</h2>\n",
        _judged(validations[-1]),
        f"<p>{_COMPARED}</p>\n<h2>Losses on data that was not trained on</h2>\n",
        _losses(validations[0], validations[-1]),
        "<h2>Drawn from captions</h2>\n",
        _drawings(kinds["image"]),
        "<h2>Descriptions and answers</h2>\n",
        _texts(kinds["text"]),
        "<h2>Walks, imagined frame by frame</h2>\n",
        *(_walk(record) for record in kinds["frames"]),
        *_sheets(run),
        f'<p>More: <a href="{ANSWERS}/index.html">all prompts with their settings</a>, and the curves: '
        "<code>tensorboard --logdir runs</code>.</p></html>\n",
    ]
    page = run / "index.html"
    page.write_text("".join(parts), encoding="utf-8", errors="backslashreplace")
    return page


def _judged(found: Mapping[str, float]) -> str:
    rows = [["", "right", "95 % interval", "cases", "in comparison"]]
    for what, name, other in _JUDGED:
        key = f"val/lab/{name}"
        if key in found:
            low, high, cases = (found[key + end] for end in (LOW, HIGH, CASES))
            compared = f"val/lab/{other}"
            interval = f"{_percent(low)} to {_percent(high)}"
            beside = _percent(found[compared]) if compared in found else ""
            rows.append([escape(what), _percent(found[key]), interval, f"{cases:,.0f}", beside])
    return _table(rows)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _losses(first: Mapping[str, float], last: Mapping[str, float]) -> str:
    rows = [["", f"step {first['step']}", f"step {last['step']}"]]
    for key in sorted(first.keys() & last.keys()):
        if key.endswith(("bits_per_byte", "text_loss", "flow_loss")):
            name = key.removeprefix("val/").replace("/", ": ").replace("_", " ")
            rows.append([name, f"{first[key]:.3g}", f"{last[key]:.3g}"])
    return _table(rows)


def _drawings(records: Sequence[Record]) -> str:
    rows = [["caption", "drawn", "the picture it was written about"]]
    for record in records:
        truth = [_own(part["picture"]) for part in record.get("truth", [])]
        rows.append([escape(record["shown"][0]["text"]), _pictures([_own(record["answer"][0])]), _pictures(truth)])
    return _table(rows)


def _texts(records: Sequence[Record]) -> str:
    rows = [["shown", "asked", "written"]]
    for record in records:
        pictures = [_own(part["picture"]) for part in record["shown"] if "picture" in part]
        asked = " ".join(part["text"] for part in record["shown"] if "text" in part)
        rows.append([_pictures(pictures), _text(asked), _text(record["answer"])])
    return _table(rows)


def _walk(record: Record) -> str:
    seen = _pictures([_own(record["shown"][-1]["picture"])])
    rows = [[escape(record["name"]), "seen last", "next"]]
    rows.append(["imagined", seen, _pictures([_own(name) for name in record["answer"][:-1]])])
    if truth := [_own(part["picture"]) for part in record.get("truth", [])]:
        rows.append(["the truth", seen, _pictures(truth)])
    return _table(rows)


def _sheets(run: Path) -> list[str]:
    """The newest picture of each judge that wrote one."""
    found = {judge: sorted((run / "lab" / judge).glob("step_*.png")) for judge in _SHEETS}
    return [
        f"<h2>{escape(_SHEETS[judge])}</h2>\n"
        f'<img class="sheet" src="{escape(quote(str(files[-1].relative_to(run))))}" alt="">\n'
        for judge, files in found.items()
        if files
    ]


def _own(name: str) -> str:
    return f"{ANSWERS}/{name}"


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

"""What a fit reads is shown before it trains: nothing is left out, or taken from an old cache, without a word."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_mm.cli import main
from lit_mm.tokenizer import Tokenizer
from tests.helpers.program import ROOT, SMALL


def fit(folder: Path, data: Path) -> dict[str, object]:
    """The entry of the report of a fit on the texts of a folder."""
    texts = [f"--data.train={data}", "--data.val=null", "--data.loader.on_error=skip", "--data.loader.max_lost=0.1"]
    run = [*SMALL, *texts, f"--trainer.logger.save_dir={folder}", "--trainer.max_steps=1", "--data.loader.workers=0"]
    main(["fit", "--config=configs/tiny.yaml", "--data=configs/data/text_only.yaml", *run])
    (report,) = json.loads(next(folder.rglob("data_report.json")).read_text(encoding="utf-8"))
    return report


def test_a_fit_says_what_it_reads_and_what_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("COLUMNS", "200")
    data = tmp_path / "data"
    texts = ["the house stands by the river"] * 30
    for name in ("a.jsonl", "b.jsonl", ".ipynb_checkpoints/a-checkpoint.jsonl"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    (data / "notes.md").touch()
    with (data / "b.jsonl").open("a", encoding="utf-8") as file:
        file.write("{cut\n")

    first = fit(tmp_path / "first", data)
    tokens = 60 * (2 + len(Tokenizer("data/tiny/tokenizer.json").encode(texts[0])))
    assert {name: first[name] for name in ("source", "split", "files", "documents", "tokens", "pictures")} == {
        "source": "text", "split": "train", "files": 2, "documents": 60, "tokens": tokens, "pictures": 0,
    }  # fmt: skip
    assert first["left_out"] == {"hidden folders": 1, ".md": 1, "unreadable": 1}
    assert first["made"]
    assert first["cached"] == []
    shown = capsys.readouterr().out
    assert "1 .md, 1 hidden folders, 1 unreadable" in shown
    assert "made now" in shown

    events = EventAccumulator(str(next((tmp_path / "first").rglob("events.*")).parent)).Reload()
    (text,) = events.Tensors("data/text_summary")
    assert "| text | train | 2 | 60 |" in text.tensor_proto.string_val[0].decode()

    second = fit(tmp_path / "second", data)
    assert (second["made"], len(second["cached"])) == (0, first["made"])
    assert "made now" not in capsys.readouterr().out

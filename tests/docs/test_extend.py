"""The parts that docs/extend.md tells a reader to write: one run trains with all of them at once."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from lit_mm.cli import main
from tests.docs.pages import commands, work_in
from tests.helpers.program import ROOT, SMALL

PAGE = ROOT / "docs" / "extend.md"
CONFIG = ["fit", "--config", "configs/tiny.yaml"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return work_in(tmp_path_factory.mktemp("extended"), PAGE)


def _all_at_once() -> list[str]:
    """The options of every command of the page that trains."""
    given = [command[3:] for command in commands(PAGE) if command[:3] == CONFIG and "--print_rows" not in command]
    return list(itertools.chain.from_iterable(given))


def test_one_run_uses_every_part(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    options = _all_at_once()
    for part in ("my_vision.", "my_feed_forward.", "my_callback.", "my_mixture.yaml", "my_loss."):
        assert any(part in option for option in options)
    small = [o for o in SMALL if not o.startswith(("--model.vision", "--trainer.callbacks", "--trainer.val_check"))]
    small.remove("--model.backbone.feed_forward.hidden_dim=128")
    length = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--trainer.logger.save_dir=runs"]
    no_pictures = ["--trainer.callbacks=[callbacks.pages.results_table.ResultsTable]"]
    main([*CONFIG, *no_pictures, *small, "--data.loader.workers=0", *options, *small, *length])

    (file,) = folder.rglob("validation.jsonl")
    results = json.loads(file.read_text().splitlines()[-1])
    assert {"val/questions/text_loss", "val/text/text_loss", "val/drawings/flow_loss"} <= results.keys()
    assert results["val/drawings/flow_loss"] < 1, "Huber's loss is half of the square, and less"
    assert "val/text/text_loss is" in capsys.readouterr().out, "the callback speaks"


def test_only_answers_are_predicted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    mixed, alone = (c for c in commands(PAGE) if "--print_rows" in c)
    for command in ([*mixed, "--data.weights.text", "0", "--data.weights.drawings", "0"], alone):
        main([*command, "--data.loader.workers", "0"])
        shown = capsys.readouterr().out
        assert "'<bos>What is 3 plus 1? 4<eos>'  (3 of " in shown, "a space, the digit and <eos>"


def test_the_tokenizer_keeps_what_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    from my_vision import PatchMeans

    vision = PatchMeans(image_size=64, cell=8)
    cells = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    images = cells.repeat_interleave(8, 2).repeat_interleave(8, 3)
    tokens = vision.encode(images)
    assert tokens.shape == (2, vision.num_tokens, vision.channels)
    assert torch.equal(vision.decode(tokens), images)

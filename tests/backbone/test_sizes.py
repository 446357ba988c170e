"""What the headers of configs/backbone say of sizes is so."""

from __future__ import annotations

import re
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_mm.model.heads import TextHead
from tests.helpers.program import ROOT

FILES = sorted(p for p in (ROOT / "configs/backbone").glob("*.yaml") if p.name.startswith(("small", "paper")))
VOCABULARIES = {"small": 32_768, "paper": 128_256}  # the paper's is Llama 3's


def load(config: dict[str, Any]) -> Any:
    """The class of a class_path, with its arguments."""
    module, _, name = config["class_path"].rpartition(".")
    return partial(getattr(import_module(module), name), **config["init_args"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_number_of_parameters_is_what_the_header_says(file: Path) -> None:
    text = file.read_text()
    config = yaml.safe_load(text)
    config["init_args"]["feed_forward"] = load(config["init_args"]["feed_forward"])
    vocabulary = VOCABULARIES[file.stem.partition("_")[0]]
    with torch.device("meta"):
        parts = load(config)(vocabulary), TextHead(config["init_args"]["dim"], vocabulary)
    header = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    said = re.search(r"([\d.]+) B\s+parameters", header)
    assert said is not None
    decimals = len(said[1].partition(".")[2])
    assert f"{sum(p.numel() for part in parts for p in part.parameters()) / 1e9:.{decimals}f}" == said[1]

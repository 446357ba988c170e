"""What the package imports is what it asks pip for, and what only some need is an extra."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lit_mm.mistake import Mistake
from lit_mm.vision.formats.diffusers_writing import obstacle
from lit_mm.vision.formats.pretrained import load_transformers
from lit_mm.vision.rae_network import RaeConfig, RaeNetwork
from tests.helpers.program import ROOT

PACKAGES = ("lit_mm", "data_modules", "callbacks")
APART = {"lit_mm/play/server.py"}
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml"}
# Libraries that come with others: huggingface_hub with timm, pyarrow and pandas with datasets, the rest with lightning.
IMPLIED = {"huggingface_hub", "pyarrow", "pandas", "lightning_utilities", "typing_extensions"}


def required() -> set[str]:
    """Import names of the run-time dependencies in pyproject.toml."""
    block = re.search(r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert block
    names = re.findall(r'^ +"([\w-]+)', block[1], re.MULTILINE)
    return {IMPORTED_AS.get(name, name) for name in names}


def imported_at_once(file: Path) -> Iterator[str]:
    """First names of what a module imports as soon as it is imported itself."""
    waiting: list[ast.stmt] = list(ast.parse(file.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        elif isinstance(node, ast.If | ast.Try | ast.With):
            waiting += node.body


def test_modules_need_only_the_run_time_dependencies() -> None:
    """Recipes of the demo's data are apart, and what imports them or the page's server, once it is asked for."""
    known = required() | IMPLIED | set(PACKAGES) | set(sys.stdlib_module_names)
    files = [
        file
        for name in PACKAGES
        for file in (ROOT / name).rglob("*.py")
        if "recipes" not in file.parts and file.relative_to(ROOT).as_posix() not in APART
    ]
    assert {(str(f), name) for f in files for name in imported_at_once(f) if name not in known} == set()
    assert not required() & {"matplotlib", "transformers"}


def test_reading_an_encoder_of_transformers_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(Mistake, match=r"needs transformers, which is not installed: pip install 'lit-mm\[formats\]'"):
        load_transformers(torch.nn.Identity(), tmp_path, "siglip")


def test_an_autoencoder_is_saved_for_ourselves_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    network = RaeNetwork(
        RaeConfig(
            encoder="vit_base_patch16_siglip_256",
            image_size=32,
            encoder_args={"embed_dim": 64, "depth": 1, "num_heads": 1},
            decoder_hidden_size=32,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=1,
            decoder_intermediate_size=32,
        )
    )
    with_it = obstacle(network)
    monkeypatch.setitem(sys.modules, "transformers", None)
    without = obstacle(network)
    assert without != with_it
    assert "lit-mm[formats]" in str(without)

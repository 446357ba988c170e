from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from lit_mm.vision import VisualTokenizer

CONFIGS = sorted((Path(__file__).parents[2] / "configs/vision").glob("*.yaml"))


def assert_same(after: Any, alone: Any) -> None:
    """The same class with the same arguments, those of tokenizers inside it too."""
    assert after.class_path == alone.class_path
    wanted = alone.init_args
    # With a folder the other sizes are not looked at.
    for name in ("folder", "encoder") if wanted.get("folder") else tuple(vars(wanted)):
        if hasattr(wanted[name], "class_path"):
            assert_same(after.init_args[name], wanted[name])
        else:
            assert after.init_args[name] == wanted[name]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_one_file_after_another_leaves_nothing_behind(config: Path) -> None:
    """Arguments of a class that several files share are merged: a file must set all that another one sets."""
    parser = ArgumentParser()
    parser.add_subclass_arguments(VisualTokenizer, "vision")
    kind = class_of(config)
    before = [other for other in CONFIGS if other != config and class_of(other) == kind]
    alone = parser.parse_args([f"--vision={config}"])
    after = parser.parse_args([*(f"--vision={other}" for other in before), f"--vision={config}"])
    assert_same(after.vision, alone.vision)


@pytest.mark.parametrize("name", ["vae_sd_paper", "vae_flux_paper"])
def test_pictures_of_the_paper_have_latents_of_28_by_28(name: str) -> None:
    """At 8 pixels to a latent, of which 4 make a token."""
    config = next(config for config in CONFIGS if config.stem == name)
    settings = yaml.safe_load(config.read_text())["init_args"]
    assert settings["image_size"] / 8 == 28
    assert (28 / settings["patch_size"]) ** 2 == 196


def class_of(config: Path) -> str:
    return str(yaml.safe_load(config.read_text())["class_path"])

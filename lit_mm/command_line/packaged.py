"""The package's own files on the command line and within YAML files, see `lit_mm.packaged`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_loader
from jsonargparse._optionals import get_omegaconf_loader

from lit_mm.packaged import packaged


def packaged_arguments(args: list[str]) -> list[str]:
    """Arguments of the program with the package's files by their whole paths, also in `--option=path`."""
    split = [arg.partition("=") if arg.startswith("--") else ("", "", arg) for arg in args]
    return [f"{option}{equals}{packaged(value, Path.cwd())}" for option, equals, value in split]


def find_packaged_configs() -> None:
    """Have jsonargparse look for the package's files in all that it reads from now on."""
    load, working = get_omegaconf_loader("omegaconf"), Path.cwd()

    def in_all(value: Any) -> Any:
        if isinstance(value, str):
            return packaged(value, working, Path.cwd())  # jsonargparse moves to the file that it reads
        if isinstance(value, list):
            return [in_all(item) for item in value]
        return {key: in_all(item) for key, item in value.items()} if isinstance(value, dict) else value

    set_loader("omegaconf", lambda text: in_all(load(text)), (yaml.YAMLError,))

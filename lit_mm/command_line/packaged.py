"""Configurations and weights that come with the package, named as they lie in the repository.

`configs/tiny.yaml` is a file of the working folder where there is one, and that of the package everywhere else: on the
command line, within YAML files, and in the configuration of a checkpoint. So commands work outside the repository too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_loader
from jsonargparse._optionals import get_omegaconf_loader

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = {"configs": _PACKAGE / "configs", "lit_mm/weights": _PACKAGE / "weights"}


def packaged(text: str, *folders: Path) -> str:
    """The package's own file as a whole path, if `text` names one and none of `folders` has a file of that name.

    Any other text is returned as it is.
    """
    for name, folder in _FOLDERS.items():
        own = folder / text.removeprefix(f"{name}/")
        if text.startswith(f"{name}/") and own.exists() and not any((f / text).exists() for f in folders):
            return str(own)
    return text


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

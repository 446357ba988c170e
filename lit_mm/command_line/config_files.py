"""Checks of the files that `--config` names, before they are read as configurations."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import yaml
from jsonargparse._typehints import ActionTypeHint, get_subclass_types
from omegaconf.errors import OmegaConfBaseException

from lit_mm.command_line.causes import interpolation_error, nearest, nearest_file, why_unusable, yaml_error
from lit_mm.mistake import MissingFile, Mistake


def check_configs(args: Sequence[str], parser: ArgumentParser) -> None:
    """Read the files that `--config` names.

    Args:
        args: of the command.
        parser: of the command.

    Raises:
        Mistake: one of them is not there, is not YAML, or holds other than top-level keys.
    """
    after = [value for option, value in pairwise(args) if option in ("--config", "-c")]
    for name in (*after, *(arg.partition("=")[2] for arg in args if arg.startswith(("--config=", "-c=")))):
        if name.lstrip().startswith("{"):  # the configuration itself
            continue
        file = Path(name)
        if not file.is_file():
            near = nearest_file(name) or "; give a YAML file, such as configs/tiny.yaml"
            raise MissingFile(f"--config: there is no file '{name}'{near}")
        if problem := yaml_error(file):
            raise Mistake(f"--config: '{name}' is {problem}")
        _check_keys(name, yaml.safe_load(file.read_text(encoding="utf-8")), parser)


@contextmanager
def in_configs() -> Iterator[None]:
    """Where configurations are read, what OmegaConf finds wrong with a `${…}` is a mistake."""
    try:
        yield
    except OmegaConfBaseException as error:
        raise Mistake(f"the configuration has {interpolation_error(error)}") from error


def _check_keys(name: str, content: object, parser: ArgumentParser) -> None:
    classes = content if isinstance(content, list) else [content]
    named = [str(item["class_path"]) for item in classes if isinstance(item, Mapping) and "class_path" in item]
    if named and len(named) == len(classes):
        option = _option_for(named[0], parser)
        raise Mistake(f"--config: '{name}' holds one part of a configuration; give it as {option} {name}")
    if not isinstance(content, dict) or not content:
        raise Mistake(f"--config: '{name}' holds no keys; write some, such as trainer: {{max_steps: 100}}")
    dests = {action.dest for action in parser._actions}
    known = {dest.partition(".")[0] for dest in dests}
    for key in content:
        if str(key).partition(".")[0] in known:
            continue
        if all(f"trainer.{other}" in dests for other in content):
            raise Mistake(f"--config: '{name}' holds values of the trainer alone; give it as --trainer {name}")
        names = [*known, *dests]
        near = nearest(str(key), known) or nearest(f"trainer.{key}", names)
        raise Mistake(f"--config: '{name}' has a key '{key}'{near or ';'} there are model, data, trainer and others")


def _option_for(class_path: str, parser: ArgumentParser) -> str:
    """The top-level option that takes such a class."""
    if why := why_unusable(class_path, (object,)):
        raise Mistake(f"--config: class_path {why}")
    module, _, name = class_path.rpartition(".")
    found = getattr(import_module(module), name)
    for action in parser._actions:
        bases = get_subclass_types(action, also_lists=True) if isinstance(action, ActionTypeHint) else None
        if bases and isinstance(found, type) and issubclass(found, bases):
            return action.option_strings[0]
    return "the key it is for, such as --model.vision"

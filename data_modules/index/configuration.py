"""What programs that work before a run read of its configuration."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from data_modules.base import DocumentDataModule
from lit_mm.mistake import Mistake
from lit_mm.packaged import packaged


def read_command(program: str, description: str | None, args: list[str] | None) -> tuple[str, list[str], int, int]:
    """What a program is told that does its work in parts, and have it print what it says.

    Args:
        program: as it is called.
        description: for its help.
        args: of the command line; those of the process by default.

    Returns:
        The path of the configuration, settings that change it, the number of the part, and how many there are.

    Raises:
        Mistake: the part is not written `2/8`.
    """
    parser = argparse.ArgumentParser(program, description=description)
    parser.add_argument("config", help="configuration of a run, such as configs/tiny.yaml")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="one of N parts, as of a SLURM array")
    own, settings = parser.parse_known_args(args)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return own.config, settings, *read_part(own.part)


def read_part(part: str) -> tuple[int, int]:
    """Number of a part, from 1 on, and how many there are.

    Raises:
        Mistake: it is not written `2/8`.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", part)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise Mistake(f"--part: '{part}' is no part; write the second of eight as 2/8")
    return number, count


def read_entries(config: str) -> dict[str, Any]:
    """The keys of a configuration of a run, or of its data alone.

    Raises:
        Mistake: it is no such file, or says nothing of data.
    """
    try:
        entries = yaml.safe_load(Path(packaged(config, Path())).read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Mistake(f"'{config}' cannot be read as YAML ({error}); give the configuration of a run") from error
    if not isinstance(entries, dict) or not {"data", "class_path"} & entries.keys():
        raise Mistake(f"'{config}' has no key 'data'; give the configuration of a run, or of its data alone")
    return entries


def read_configuration(
    config: str,
    settings: Sequence[str],
    add: Callable[[ArgumentParser], None] = lambda parser: None,
    asked: Sequence[str] = ("data",),
) -> Namespace:
    """The data of a configuration, and what else is asked.

    Args:
        config: a YAML file with the key `data`, or one that is its value.
        settings: that change it, such as `--data.loader.cache=/scratch/cache`.
        add: adds what else is asked to a parser.
        asked: the keys that are.

    Raises:
        Mistake: it is no such file, or has no data of ours.
    """
    file, entries = Path(packaged(config, Path())), read_entries(config)
    parser = ArgumentParser(parser_mode="omegaconf", exit_on_error=False)
    parser.add_subclass_arguments(DocumentDataModule, "data", required=True)
    add(parser)
    if "class_path" in entries:
        given = [f"--data={file}"]
    else:
        parser.add_argument("--config", action="config")
        for key in entries.keys() - set(asked):
            parser.add_argument(f"--{key}", type=Any)  # of the model and the trainer: not asked here
        given = [f"--config={file}"]
    try:
        return parser.instantiate_classes(parser.parse_args([*given, *settings]))
    except argparse.ArgumentError as error:
        raise Mistake(f"'{config}': {' '.join(str(error).split())}") from error

"""Mistakes in the configuration, each in one sentence."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser
from omegaconf.errors import OmegaConfBaseException

from lit_mm.mistake import Mistake

_KEY = re.compile(r'Parser key "([^"]+)"')
_CLASS = re.compile(r"Problem with given class_path '([^']+)'")
_MADE = re.compile(r"Got value: Namespace\(class_path='([^']+)'")
_OPTION = re.compile(r"(?:Option|Key) '([^']+)' is not (?:accepted|expected)")
_MISSING = re.compile(r"(module '[^']+' has no attribute '[^']+'|No module named '[^']+')")
_FILE = re.compile(r"Expected a path but (\S+) either not accessible or invalid")
_TYPE = re.compile(r"Expected a <class '([^']+)'>(?:\. Got value: (.+?)(?:\. Got value|$))?")
_CHOICE = re.compile(r"Expected a typing\.Literal\[(.+?)\](?:\. Got value: (.+?)(?:\. Got value: .+)?)?$")
_VALUE = re.compile(r"Given value: (.+)")
_CONFIG = re.compile(r"Parser key \"config\": File does not exist: '(.+)'")
_ARGUMENT = re.compile(r"unrecognized arguments: (.+)")


class ConfigParser(LightningArgumentParser):
    """Lightning's parser, which says what is wrong in one sentence instead of a tree of attempts."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with exit code 2 and one sentence; where errors are raised, raise jsonargparse's own."""
        if not self.exit_on_error:
            super().error(message, ex)
        sys.stderr.write(f"error: {one_sentence(message)}\n")
        self.exit(2)


def check_configs(args: Sequence[str]) -> None:
    """Read the files that `--config` names, as jsonargparse does not say which of them is no YAML.

    Raises:
        Mistake: one of them is not YAML, or no mapping of keys. (That one is missing jsonargparse says itself.)
    """
    after = [value for option, value in pairwise(args) if option in ("--config", "-c")]
    for name in (*after, *(arg.partition("=")[2] for arg in args if arg.startswith(("--config=", "-c=")))):
        if not Path(name).is_file():
            continue
        try:
            content = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
        except yaml.MarkedYAMLError as error:
            line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
            raise Mistake(f"--config: '{name}' is not YAML ({line}{error.problem}); correct it") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise Mistake(f"--config: '{name}' is not YAML in UTF-8 ({error}); save it as that") from error
        if not isinstance(content, dict):
            raise Mistake(f"--config: '{name}' holds no keys; write some, such as trainer: {{max_steps: 100}}")


@contextmanager
def in_configs() -> Iterator[None]:
    """Where configurations are read, what OmegaConf finds wrong with a `${…}` is a mistake."""
    try:
        yield
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).splitlines()[0]
        raise Mistake(f"{error.full_key or 'the configuration'} has a ${{…}} that leads nowhere: {reason}") from error


@contextmanager
def in_trainer() -> Iterator[None]:
    """Where a Trainer is made, all it does is to look at its arguments: what it refuses is a mistake."""
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        raise Mistake(f"trainer: {' '.join(str(error).split())}") from error


def one_sentence(message: str) -> str:
    """What jsonargparse's message comes down to: the key, what was found there, and what would be right.

    A value is tried as each type that it may have, as a path and as a class, and the message is the tree of what went
    wrong with each. The deepest line is of the attempt that came furthest. A message without a known line is returned
    as it is.
    """
    if unknown := _ARGUMENT.search(message):
        return f"there is no option {unknown[1]}; `--help` lists those there are"
    if absent := _CONFIG.search(message):
        return f"--config: there is no file '{absent[1]}'; give the path of a YAML file, such as configs/tiny.yaml"
    lines = message.splitlines()
    found: list[tuple[int, int, str]] = []
    keys: list[tuple[int, str]] = []
    path = ""
    for number, line in enumerate(lines):
        depth = len(line) - len(line.lstrip(" -"))
        if key := _KEY.findall(line):
            keys = [(d, k) for d, k in keys if d < depth] + [(depth, k) for k in key]
            path = ".".join(k for _, k in keys)
        if sentence := _sentence(path, lines, number):
            found.append((depth, -number, sentence))
    return max(found)[2] if found else message


def _sentence(path: str, lines: list[str], number: int) -> str | None:
    line = lines[number]
    owner = _MADE.search(line) or (_CLASS.search(lines[number - 1]) if number else None)
    if option := _OPTION.search(line):
        return f"{path}.{option[1]} is unknown; {_options(owner[1], option[1])}" if owner else f"{path}: {option[0]}"
    if missing := _MISSING.search(line):
        return f"{path} names a class that is not there ({missing[1]}); give a path such as package.module.Class"
    if file := _FILE.search(line):
        return f"{path} is '{file[1]}', which is neither a file nor a class; give the path of one"
    after = (_VALUE.search(later) for later in lines[number + 1 :])
    if choice := _CHOICE.search(line):
        value = choice[2] or next((m[1] for m in after if m), "")
        choices = ", ".join(m[1] for other in lines[number:] if (m := _CHOICE.search(other)))
        return f"{path} is {value}; it takes one of {choices}"
    if (type_ := _TYPE.search(line)) and type_[1] != "NoneType":
        value = type_[2] or next((m[1] for m in after if m), "")
        return f"{path} is {value}; it takes a value of type {type_[1]}"
    return None


def _options(class_path: str, wrong: str) -> str:
    module, _, name = class_path.rpartition(".")
    names = [n for n in inspect.signature(getattr(import_module(module), name)).parameters if n != "kwargs"]
    if near := difflib.get_close_matches(wrong, names, n=1):
        return f"did you mean '{near[0]}'? {name} takes {', '.join(names)}"
    return f"{name} takes {', '.join(names)}"

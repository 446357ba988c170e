"""Mistakes in the arguments of a class or of the program, and in values, each in one sentence."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import Namespace

from lit_mm.command_line.causes import nearest
from lit_mm.mistake import Mistake

_UNKNOWN = re.compile(
    r"unrecognized arguments: (.+)|(?:accept option|Option|Group) '([^']+)'(?: does not accept option '([^']+)')?"
)
_REQUIRED = re.compile(r"the following arguments are required: (.+)")
_NO_VALUE = re.compile(r"argument (\S+): expected")
_STARTS = {
    "fit": "start with --config configs/tiny.yaml",
    "validate": "give --ckpt_path CHECKPOINT",
    "predict": "give --ckpt_path CHECKPOINT, such as --ckpt_path lit_mm/weights/lab",
}
_SUFFICIENT = {"-h", "--help", "-c", "--config", "--ckpt_path", "--model", "--print_config"}
_SHOWN = 100  # characters of a list or mapping that is no such value
_OF_PARSERS = {"help", "print_config", "print_shtab"}


def check_start(args: Sequence[str]) -> None:
    """Refuse a command that has nothing to start from, before its other values are read without a model.

    Raises:
        Mistake: neither a configuration, nor a checkpoint, nor a model was given, or an argument is no text.
    """
    for arg in args:
        if any("\udc80" <= character <= "\udcff" for character in arg):  # as Python writes bytes it cannot decode
            shown = os.fsencode(arg).decode(errors="backslashreplace")
            kind = sys.getfilesystemencoding()
            how = "rename the file or folder" if kind == "utf-8" else "set PYTHONUTF8=1"
            raise Mistake(f"'{shown}' is not written in {kind}, as names are in this locale; {how}")
    given = {arg.partition("=")[0] for arg in args}
    if not args or args[0] not in _STARTS or given & _SUFFICIENT or any(name.endswith(".help") for name in given):
        return
    if files := [arg for arg in args[1:] if Path(arg).is_file()]:
        raise Mistake(f"'{files[0]}' belongs to no option; write --config {files[0]}")
    raise Mistake(f"{args[0]} has no model and no data; {_STARTS[args[0]]}")


def of_arguments(parser: ArgumentParser, message: str, key: str) -> str | None:
    """Of a name that is unknown, a value that is missing, or a command that is none.

    Args:
        parser: knows the arguments; its `made` is the class that takes them, or None.
        message: argparse's or jsonargparse's.
        key: that leads to the class; empty at the top.

    Returns:
        None if the message is about something else, such as a value.
    """
    made = getattr(parser, "made", None)
    if found := _UNKNOWN.search(message):
        return _of_class(parser, found, key, made.__name__) if made else _at_top(parser, found)
    if found := _REQUIRED.search(message):
        return (
            f"{key} ({made.__name__}) lacks {found[1]}; give {key}.{found[1].split(',')[0]}"
            if made
            else _lacking(found[1])
        )
    if found := _NO_VALUE.search(message):
        return f"{found[1].split('/')[-1]} has no value; write one behind it"
    if "subcommand" in message:
        return _command(message)
    return None


def of_value(key: str, value: Any, typehint: Any) -> str:
    """Of a value that is none of what its key takes.

    Args:
        key: of the value.
        value: what was given.
        typehint: of what is right.
    """
    choices = [choice for kind in kinds(typehint) if get_origin(kind) is Literal for choice in get_args(kind)]
    types = [_name(kind) for kind in kinds(typehint) if kind is not NoneType and get_origin(kind) is not Literal]
    wanted = [f"one of {', '.join(map(repr, choices))}"] if choices else []
    wanted += [f"a value of type {' or '.join(types)}"] if types else []
    given = str(value.as_dict() if isinstance(value, Namespace) else value)
    given = given if isinstance(value, str) or len(given) <= _SHOWN else f"{given[:_SHOWN]}…"
    return f"{key} is {given}; it takes {' or '.join(wanted)}"


def _of_class(parser: ArgumentParser, found: re.Match[str], key: str, name: str) -> str:
    wrong = (found[1] or found[3] or found[2]).split("=")[0].split(" ")[0].removeprefix("--")
    names = [a.dest for a in parser._actions if a.dest not in _OF_PARSERS and not a.dest.endswith(".help")]
    return f"{key}.{wrong} is unknown{nearest(wrong, names) or ';'} {name} takes {', '.join(names)}"


def _at_top(parser: ArgumentParser, found: re.Match[str]) -> str:
    if found[1] is not None and not found[1].startswith("-"):
        return f"'{found[1].split(' ')[0]}' belongs to no option; a configuration is given with --config FILE"
    wrong = found[1].split(" ")[0].split("=")[0] if found[1] else "--" + ".".join(filter(None, found.groups()[1:]))
    commands = next((a.choices for a in parser._actions if isinstance(a.choices, dict)), {})
    options = {option for each in (parser, *commands.values()) for option in each._option_string_actions}
    near = nearest(wrong, options)
    return f"there is no option {wrong}{near or '; `--help` lists those there are'}"


def _lacking(names: str) -> str:
    command = names.partition(".")[0]
    lacking = " and ".join(name.rpartition(".")[2] for name in names.split(", "))
    return f"{command} lacks its {lacking}; {_STARTS.get(command, 'give --config FILE')}"


def _command(message: str) -> str:
    given = re.search(r"invalid choice: '([^']+)'", message)
    if given is None:
        return "no command was given; write lit-mm fit, lit-mm validate or lit-mm predict first"
    near = nearest(given[1], _STARTS)
    return f"there is no command '{given[1]}'{near or ';'} there are {', '.join(_STARTS)}"


def kinds(typehint: Any) -> list[Any]:
    """The types of a union, or the one type."""
    if get_origin(typehint) in (Union, UnionType):
        return [kind for part in get_args(typehint) for kind in kinds(part)]
    return [typehint]


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")

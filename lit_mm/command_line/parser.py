"""The parser of the command line: Lightning's, with values replaced by files, lists changed by name, and told mistakes.

jsonargparse tries a value as each type that it may have, and reports the tree of attempts as prose. Here every value
that fails is noted with its key while the attempts are made, and of the notes the deepest becomes the sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args, get_origin

import yaml
from jsonargparse import Namespace
from jsonargparse._actions import _ActionConfigLoad
from jsonargparse._typehints import ActionTypeHint, get_subclass_types
from jsonargparse._util import NestedArg
from lightning.pytorch.cli import LightningArgumentParser

from lit_mm.command_line.causes import is_empty, nearest, why_no_values, why_unusable
from lit_mm.command_line.constructors import made
from lit_mm.command_line.mistakes import kinds, of_arguments, of_value
from lit_mm.mistake import Mistake


class Failure(NamedTuple):
    """A value that could not be used.

    Attributes:
        keys: that lead to it, from the outermost.
        sentence: what is wrong.
    """

    keys: tuple[str, ...]
    sentence: str


_keys: ContextVar[tuple[str, ...]] = ContextVar("keys", default=())
_failures: ContextVar[list[Failure]] = ContextVar("failures")


class ConfigParser(LightningArgumentParser):
    """Lightning's parser, which takes no abbreviations, and says what is wrong in one sentence.

    Attributes:
        made: the class whose arguments these are; None at the top.
    """

    made: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | kwargs)

    def add_class_arguments(self, theclass: Any, nested_key: str | None = None, *args: Any, **kwargs: Any) -> list[str]:
        """jsonargparse's; remembers whose arguments they are."""
        if nested_key is None:
            self.made = theclass
        return super().add_class_arguments(theclass, nested_key, *args, **kwargs)

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """jsonargparse's, which gives its groups this method too."""
        action = super().add_argument(*args, **kwargs)  # type: ignore[misc]
        if type(action) is ActionTypeHint:
            action.__class__ = ConfigValue
        if type(action) is _ActionConfigLoad:
            action.__class__ = ConfigGroup
        return action

    def instantiate(self, *args: Any, **kwargs: Any) -> Namespace:
        """jsonargparse's; a class that refuses its arguments is named."""
        kwargs.setdefault("instantiators", [(made, object, True)])
        return super().instantiate(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise one sentence at the top; below it, note it and raise jsonargparse's own error.

        Raises:
            Mistake: always, at the top.
        """
        if not self.exit_on_error:
            if _keys.get() and (sentence := of_arguments(self, message, ".".join(_keys.get()))):
                _failures.get().append(Failure(_keys.get(), sentence))
            super().error(message, ex)
        sentence = _noted(ex) or of_arguments(self, message, "") or message
        raise Mistake(sentence) from ex


class ConfigGroup(_ActionConfigLoad):
    """The keys below `trainer`, which a file may hold."""

    def _load_config(self, value: Any, parser: ConfigParser) -> Any:
        if isinstance(value, str) and (why := why_no_values(value)):
            raise Mistake(f"{self.dest} {why}")
        try:
            return super()._load_config(value, parser)
        except TypeError as error:
            if _noted(error):
                raise
            raise Mistake(f"{self.dest} is {value}; it takes a YAML file that holds its keys") from error


class ConfigValue(ActionTypeHint):
    """The value of a key.

    A file that names a class replaces what the key, or an entry of a mapping, had before. An item of a list of classes
    is changed by the name of its class: `--trainer.callbacks.Checkpoints.every_n_train_steps 100`.

    Attributes:
        named: class of the item of a list that is being changed, with a dot before it, or empty.
    """

    named = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Put a value of the command line into the configuration."""
        parser, cfg, value, option = args
        base, items = self.get_option_string_base(option), cfg.get(self.dest)
        if base is not None and isinstance(items, list):
            return self._change_item(parser, cfg, value, option[len(base) + 1 :])
        if not isinstance(items, list) and _names_a_class(value):
            _forget(cfg, [self.dest] if base is None else [self.dest, *option[len(base) + 1 :].split(".")])
        return super().__call__(parser, cfg, value, option)

    def _change_item(self, parser: ConfigParser, cfg: Namespace, value: Any, option: str) -> None:
        """Change what an option says, such as `Checkpoints.every_n_train_steps`, or of the last item `decay`."""
        items = cfg.get(self.dest)
        name, _, argument = option.partition(".")
        if name.islower():
            name, argument = "", option
            self._check_last(items, option)
        index = _index_of(name, items, self.dest) if name else len(items) - 1
        if not argument:
            raise Mistake(f"--{self.dest}.{name} names no argument; write --{self.dest}.{name}.ARGUMENT {value}")
        items.append(items.pop(index))  # jsonargparse changes the last one
        self.named = name and f".{name}"
        try:
            super().__call__(parser, cfg, value, f"--{self.dest}.{argument}")
        finally:
            self.named = ""
        items = cfg.get(self.dest)
        items.insert(index, items.pop())

    def _check_last(self, items: list[Any], option: str) -> None:
        """Refuse an argument that the last item lacks and others have."""
        argument = option.partition(".")[0]
        owners = [item.class_path for item in items if isinstance(item, Namespace) and _takes(item, argument)]
        if owners and not _takes(items[-1], argument):
            last, owner = (path.rpartition(".")[2] for path in (items[-1].class_path, owners[-1]))
            raise Mistake(
                f"--{self.dest}.{option}: the last one there, {last}, has no '{argument}'; write "
                f"--{self.dest}.{owner}.{option}"
            )

    def _check_type(self, value: Any, append: bool = False, cfg: Any = None, mode: Any = None) -> Any:
        key = self.dest + self.named
        if isinstance(value, NestedArg) and self.is_mapping_typehint(self._typehint):
            name = value.key.partition(".")[0]
            key += f".{name}"
            if name == value.key and _names_a_class(value.val):
                value = {**((cfg and cfg.get(self.dest)) or {}), name: value.val}
        with _at(key):
            keys, failures = _keys.get(), _failures.get()
            try:
                if is_empty(value) and self._why_unusable(value, self._typehint):  # which would be read as null
                    raise TypeError("an empty file")
                checked = super()._check_type(value, append=append, cfg=cfg, mode=mode)
                if told := _unquoted(".".join(keys), checked, self._typehint):
                    failures.append(Failure(keys, told))
                    raise TypeError(told)
                return checked
            except TypeError as error:
                if all(len(failure.keys) < len(keys) for failure in failures):
                    failures.append(Failure(keys, self._sentence(".".join(keys), value)))
                if len(keys) == 1:
                    error.failures = failures  # type: ignore[attr-defined]
                raise

    def _sentence(self, key: str, value: Any) -> str:
        typehint = self._typehint
        if isinstance(value, NestedArg):
            if self.is_mapping_typehint(typehint):
                typehint = get_args(typehint)[1]
            elif not get_subclass_types(self, also_lists=True, callable_return=True):
                return f"{key}.{value.key} is unknown; {key} has no parts"
            value = value.val
        why = self._why_unusable(value, typehint)
        return f"{key} {why}" if why else of_value(key, value, typehint)

    def _why_unusable(self, value: Any, typehint: Any) -> str | None:
        """What is wrong with a class or values, or the file that holds them, where the key takes such."""
        if any(is_dataclass(kind) for kind in kinds(typehint)) and (why := why_no_values(value)):
            return why
        bases = get_subclass_types(self, also_lists=True, also_containers=True, callable_return=True) or ()
        return why_unusable(value, bases) if bases and not {int, float, str} & {*kinds(typehint)} else None


@contextmanager
def _at(key: str) -> Iterator[None]:
    fresh = None if _keys.get() else _failures.set([])
    token = _keys.set((*_keys.get(), key))
    try:
        yield
    finally:
        _keys.reset(token)
        if fresh is not None:
            _failures.reset(fresh)


def _noted(error: BaseException | None) -> str | None:
    """The deepest failure that an error at the top is about; of several the first."""
    while error is not None:
        if failures := getattr(error, "failures", None):
            return max(failures, key=lambda failure: len(failure.keys)).sentence
        error = error.__cause__ or error.__context__
    return None


def _unquoted(key: str, value: Any, typehint: Any) -> str | None:
    """What is wrong with a mapping by names, one of which YAML takes for a number or a truth value."""
    by_name = any(get_origin(kind) in (dict, Mapping) and get_args(kind)[0] is str for kind in kinds(typehint))
    if not by_name or not isinstance(value, dict):
        return None
    wrong = next((name for name in value if not isinstance(name, str)), None)
    if wrong is None:
        return None
    example = "'no'" if wrong is False else "'yes'" if wrong is True else f"'{wrong}'"
    return f"{key} has a name that YAML reads as {str(wrong).lower()}; put it in quotes, such as {example}"


def _names_a_class(value: Any) -> bool:
    if not isinstance(value, str) or not Path(value).is_file():
        return False
    try:
        content = yaml.safe_load(Path(value).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        return False
    return isinstance(content, dict) and "class_path" in content


def _forget(node: Any, keys: list[str]) -> None:
    """Take away what is there under the last of the keys, which jsonargparse would merge a new value with."""
    for key in keys[:-1]:
        node = node.get("init_args", node).get(key)
        if not isinstance(node, dict | Namespace):
            return
    if keys[-1] in (owner := node.get("init_args", node)):
        owner[keys[-1]] = None  # keeps its place among the entries of a mapping


def _index_of(name: str, items: list[Any], key: str) -> int:
    names = [str(item.get("class_path")).rpartition(".")[2] for item in items if isinstance(item, dict | Namespace)]
    if names.count(name) > 1:
        raise Mistake(f"--{key}.{name}: there are {names.count(name)} of that class; change them in a file")
    if name not in names:
        near = nearest(name, names)
        raise Mistake(f"--{key}.{name}: there is no {name} in {key}{near or ';'} it has {', '.join(names) or 'none'}")
    return names.index(name)


def _takes(item: Namespace, argument: str) -> bool:
    parser = ActionTypeHint.get_class_parser(item.class_path)
    return any(action.dest == argument for action in parser._actions)

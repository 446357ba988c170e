"""Where prompts are written down: YAML, JSON lines, standard input or a folder of pictures, all as the same items."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from lit_mm.mistake import MissingFile, Mistake

STDIN = "-"
GIVEN = ""  # in Python, not in any file
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
KINDS = {
    "draw": "a caption to draw",
    "describe": "a picture, or a folder of pictures, to describe",
    "answer": "a question, or the turns of a conversation, to answer",
    "continue": "a text to go on with",
    "imagine": "a video, or a list of pictures, to act in",
    "interleave": "a list of {text: …} and {picture: FILE} to go on with",
}
OPTIONS = {
    "name", "seed", "repeat", "max_tokens", "max_frames", "temperature", "top_k", "top_p", "min_p", "stop",
    "guidance_scale", "noise_scale", "steps", "method",
}  # fmt: skip
OWN_OPTIONS = {
    "draw": {"truth", "crop"},
    "describe": {"question", "crop"},
    "answer": {"pictures", "crop"},
    "imagine": {"frames", "actions", "counterfactuals", "truth", "crop"},
    "interleave": {"wanted", "crop"},
}
_LONGEST = 200  # bytes of a name; file systems take 255, and what files are of is added to it
_NAME = re.compile(r"\w([\w \-+=]{0,98}[\w\-+=])?")  # no dot: what follows one tells an answer's files apart


@dataclass
class Item:
    """One prompt to be: what was asked, and which of its repetitions or ways to act.

    Attributes:
        name: of this one.
        group: of all that the item asks.
        settings: the item as asked.
        repetition: counted from 0; added to the seed.
        shown: the picture to describe, or the actions to take, where an item asks for several.
        error: why it cannot be asked.
    """

    name: str
    group: str
    settings: dict[str, Any]
    repetition: int = 0
    shown: Any = None
    error: str | None = None

    @property
    def kind(self) -> str:
        """Which of `KINDS`."""
        return next(kind for kind in KINDS if kind in self.settings)


def read_stdin() -> Iterator[str]:
    """Lines of standard input, each as soon as it is there.

    Raises:
        Mistake: it is no text.
    """
    try:
        yield from sys.stdin
    except UnicodeDecodeError as error:
        raise Mistake(f"data.prompts: standard input is no text in UTF-8 ({error.reason}); send UTF-8") from error


def read_items(source: str, text: str | list[Any] | None = None, first: int = 0) -> list[dict[str, Any]]:
    """The items of a source as they were asked, each with a name.

    Args:
        source: path of a YAML list (.yaml), of JSON lines (.jsonl) or of a folder of pictures; `-` or `GIVEN` for
            `text`.
        text: lines of YAML or JSON mappings, or the mappings themselves.
        first: number of the first item, which is its name where it has none.

    Raises:
        MissingFile: there is no such file.
        Mistake: it cannot be read, an item is of no kind or has an option that there is not, or a name is unfit or
            given twice.
    """
    if isinstance(text, list):
        found = text
    elif source == STDIN:
        found = _lines(text or "", "")
    else:
        path = Path(source)
        if path.is_dir():
            found = [{"describe": str(file), "name": name} for name, file in pictures_of(path).items()]
        elif path.is_file():
            found = _lines(_text(path), f"'{path}'") if path.suffix in (".jsonl", ".ndjson") else _yaml_list(path)
        else:
            raise MissingFile(
                f"data.prompts: no file '{source}'; give a YAML list, JSON lines, a folder of pictures, or - for "
                "standard input"
            )
    if not found:
        raise Mistake(f"data.prompts: there is no prompt in '{source}'; give at least one, such as draw: a red fox")
    items = [_checked(number, item, source) for number, item in enumerate(found, first)]
    check_names([item["name"] for item in items], source)
    return items


def check_names(names: list[str], source: str) -> None:
    """Names become file names, on file systems that may not tell capitals from small letters.

    Raises:
        Mistake: two are alike, or one is too long with what is added to it.
    """
    if long := [name for name in names if len(name.encode()) > _LONGEST]:
        raise Mistake(
            f"data.prompts: '{source}' has a prompt named '{long[0]}', which takes {len(long[0].encode())} bytes as a "
            f"file name; make it at most {_LONGEST}"
        )
    counts = Counter(name.casefold() for name in names)
    twice = [name for name in names if counts[name.casefold()] > 1]
    if twice:
        raise Mistake(f"data.prompts: '{source}' has two prompts named '{twice[0]}'; names become file names")


def pictures_of(folder: Path) -> dict[str, Path]:
    """The pictures in a folder by a name for each."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES)
    stems = Counter(_file_name(file.stem).casefold() for file in files)
    named: dict[str, Path] = {}
    taken: set[str] = set()
    for file in files:
        name = _file_name(file.stem)
        if stems[name.casefold()] > 1:
            name = _file_name(f"{file.stem}-{file.suffix[1:]}")
        numbered = (name if n == 1 else f"{name}-{n}" for n in count(1))
        name = next(one for one in numbered if one.casefold() not in taken)
        taken.add(name.casefold())
        named[name] = file
    return named


def _file_name(text: str) -> str:
    name = re.sub(r"[^\w\-+=]", "_", text).encode()[:90].decode(errors="ignore")
    return name if _NAME.fullmatch(name) else f"_{name}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Mistake(f"data.prompts: '{path}' is no text in UTF-8 ({error.reason}); save it as UTF-8") from error


def _yaml_list(path: Path) -> list[Any]:
    try:
        items = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise Mistake(f"data.prompts: '{path}' is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(items, list):
        raise Mistake(f"data.prompts: '{path}' has to hold a YAML list of prompts, such as - draw: a red fox")
    return items


def _lines(text: str, where: str) -> list[Any]:
    items = []
    # JSON may hold characters that `splitlines` takes for ends of lines.
    for number, line in enumerate(text.split("\n"), 1):
        if is_prompt(line):
            item = _mapping(line)
            if item is None:
                place = f"line {number} of {where}" if where else "a line of standard input"
                raise Mistake(f"data.prompts: {place} is {line.strip()[:80]!r}; write {_as_prompt(line)}")
            items.append(item)
    return items


def is_prompt(line: str) -> bool:
    """Whether a line is more than space or a comment."""
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _as_prompt(line: str) -> str:
    """What somebody who wrote this may have wanted to write."""
    if line.lstrip().startswith(("{", "[", "-")):
        return "a mapping such as draw: a red fox"
    found = re.match(rf"\s*({'|'.join(KINDS)})\b[\s:]*(.*\S)", line, re.IGNORECASE)
    kind, rest = (found[1].lower(), found[2]) if found else ("draw", line.strip())
    plain = f"{kind}: {rest}"
    return plain if _mapping(plain) is not None else f"{kind}: {json.dumps(rest, ensure_ascii=False)}"


def _mapping(line: str) -> dict[Any, Any] | None:
    """Of a line of JSON, or else of YAML; None if it holds anything else."""
    try:
        item = json.loads(line)
    except ValueError:
        try:
            item = yaml.safe_load(line)
        except yaml.YAMLError:
            return None
    return item if isinstance(item, dict) else None


def _checked(number: int, item: Any, source: str) -> dict[str, Any]:
    where = f"data.prompts: item {number} of '{source}'" if source != GIVEN else f"prompts[{number}]"
    if isinstance(item, str):
        raise Mistake(f"{where} is {item[:80]!r}; write {_as_prompt(item)}")
    kinds = [kind for kind in KINDS if isinstance(item, dict) and kind in item]
    if len(kinds) != 1:
        known = ", ".join(f"'{kind}' ({meaning})" for kind, meaning in KINDS.items())
        raise Mistake(
            f"{where} has {len(kinds) or 'none'} of the kinds of prompts{_nearest_kind(item)}; give exactly one of "
            f"{known}"
        )
    known_options = OPTIONS | OWN_OPTIONS.get(kinds[0], set())
    unknown = [key for key in item if key not in known_options and key != kinds[0]]
    if unknown:
        options = ", ".join(sorted(known_options))
        raise Mistake(f"{where} has an unknown key '{unknown[0]}'; known for '{kinds[0]}': {options}")
    if kinds[0] == "imagine" and ("actions" in item) == ("counterfactuals" in item):
        raise Mistake(f"{where}: 'imagine' needs either 'actions' or 'counterfactuals' (actions by name)")
    name = str(item.get("name", number))
    check_name(name, where)
    return {**_with_text_keys(item), "name": name}


def _nearest_kind(item: Any) -> str:
    """What a misspelt kind may have been meant to be."""
    keys = [str(key) for key in item if key not in OPTIONS] if isinstance(item, dict) else []
    near = [(key, kind) for key in keys for kind in difflib.get_close_matches(key.lower(), KINDS, n=1)]
    return f", but '{near[0][0]}' (did you mean '{near[0][1]}'?)" if near and not KINDS.keys() & item.keys() else ""


def _with_text_keys(value: Any) -> Any:
    """YAML has dates and numbers as keys, the JSON that answers are written in has not."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(one) for key, one in value.items()}
    return [_with_text_keys(one) for one in value] if isinstance(value, list) else value


def check_name(name: str, where: str) -> None:
    """Whether it is fit for a file name.

    Raises:
        Mistake: it is not.
    """
    if not _NAME.fullmatch(name):
        raise Mistake(
            f"{where} has the name '{name}', which is no safe file name; use letters, digits, spaces, '-', '_', '+' "
            "and '=', at most 100"
        )

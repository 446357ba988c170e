"""Pictures in a folder for each class, as of ImageNet, and captions made of the names of the classes."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from data_modules.index.listing import Listing
from data_modules.prompting.prompt_items import PICTURE_SUFFIXES
from data_modules.reading.cached import generated
from data_modules.reading.files import has_suffix
from lit_mm.mistake import MissingFile, Mistake, has_undecoded, undecoded

NAME = "{}"


def class_rows(
    folder: Path, templates: Sequence[str], names: Path | None, key: str, listing: Listing
) -> datasets.Dataset:
    """A row for each picture, with its path in the folder and its caption.

    Each picture has one of the templates for good, chosen by its path.

    Args:
        folder: with a folder of pictures for each class.
        templates: captions with `{}` where the name of the class stands.
        names: JSON file that names the classes: `{"n01440764": "tench"}`, or as Keras and torchvision have it,
            `{"0": ["n01440764", "tench"]}`. By default a class is called as its folder.
        key: the YAML key, for messages.
        listing: of the run, which looks files up.

    Raises:
        MissingFile: there is no such folder, or no picture in it.
        Mistake: a template has no place for the name, a class has no name, or the name of a file is no text.
    """
    for template in templates:
        if template.count(NAME) != 1:
            raise Mistake(
                f"{key}: class_captions has '{template}'; write {NAME} once, where the name of the class stands"
            )
    classes, paths = listing.look(("classes", str(folder)), lambda: _pictures_by_class(folder, key))
    called = {name: name.replace("_", " ") for name in classes} if names is None else _names(names, classes, key)
    features = datasets.Features({"image": datasets.Value("string"), "caption": datasets.Value("string")})
    return generated(_captioned, paths, {"called": called, "templates": tuple(templates)}, features)


def _pictures_by_class(folder: Path, key: str) -> tuple[list[str], list[str]]:
    """Names of the classes, and paths of the pictures in `folder`."""
    if not folder.is_dir():
        raise MissingFile(f"{key}: there is no folder '{folder}'; with class_captions it holds one for each class")
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    paths = [
        f"{name}/{file}"
        for name in classes
        for file in sorted(os.listdir(folder / name))
        if has_suffix(Path(file), PICTURE_SUFFIXES)
    ]
    if not paths:
        raise MissingFile(f"{key}: '{folder}' has no folders with pictures, such as {folder}/cat/1.jpg")
    if wrong := next(filter(has_undecoded, paths), None):
        raise Mistake(f"{key}: {undecoded(str(folder / wrong))}")
    return classes, paths


def _captioned(items: Sequence[str], called: dict[str, str], templates: Sequence[str]) -> Iterator[dict[str, Any]]:
    for path in items:
        template = templates[zlib.crc32(path.encode()) % len(templates)]
        yield {"image": path, "caption": template.replace(NAME, called[path.partition("/")[0]])}


def _names(file: Path, classes: Sequence[str], key: str) -> dict[str, str]:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        pairs = dict(entries.values() if all(isinstance(one, list) for one in entries.values()) else entries)
    except FileNotFoundError as error:
        raise MissingFile(f"{key}: class_names: there is no file '{file}'") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise Mistake(f"{key}: class_names: '{file}' is no JSON object of names by folder ({error})") from error
    for name in classes:
        if not isinstance(pairs.get(name), str):
            raise Mistake(f"{key}: class_names: '{file}' has no name for the folder '{name}'; add one")
    return {name: pairs[name].replace("_", " ") for name in classes}

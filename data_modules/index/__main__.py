"""`python -m data_modules.index CONFIG`: make the indexes that a run needs before it starts, on all cores."""

from __future__ import annotations

import argparse
import logging
import re
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from data_modules.base import DocumentDataModule
from data_modules.index.keys import key_of_texts
from data_modules.index.making import make_missing, missing_of
from data_modules.index.sidecars import Indexing
from lit_mm.mistake import Mistake, ends_with_a_sentence
from lit_mm.packaged import packaged
from lit_mm.tokenizer import Tokenizer


def main(args: list[str] | None = None) -> None:
    """Make the indexes of a configuration, or one part of them."""
    parser = argparse.ArgumentParser("python -m data_modules.index", description=__doc__)
    parser.add_argument("config", help="configuration of a run, such as configs/tiny.yaml, or of data alone")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="one of N parts, as of a SLURM array")
    own, settings = parser.parse_known_args(args)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with ends_with_a_sentence():
        make_part(read_data(own.config, settings), *read_part(own.part))


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


def read_data(config: str, settings: list[str]) -> DocumentDataModule:
    """The data of a configuration.

    Args:
        config: a YAML file with the key `data`, or one that is its value.
        settings: that change it, such as `--data.loader.cache=/scratch/cache`.

    Raises:
        Mistake: it is no such file, or has no data of ours.
    """
    file = Path(packaged(config, Path()))
    try:
        entries = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Mistake(f"'{config}' cannot be read as YAML ({error}); give the configuration of a run") from error
    if not isinstance(entries, dict) or not {"data", "class_path"} & entries.keys():
        raise Mistake(f"'{config}' has no key 'data'; give the configuration of a run, or of its data alone")
    parser = ArgumentParser(parser_mode="omegaconf", exit_on_error=False)
    parser.add_subclass_arguments(DocumentDataModule, "data", required=True)
    if "class_path" in entries:
        given = [f"--data={file}"]
    else:
        parser.add_argument("--config", action="config")
        for key in entries.keys() - {"data"}:
            parser.add_argument(f"--{key}", type=Any)  # of the model and the trainer: not asked here
        given = [f"--config={file}"]
    try:
        return parser.instantiate_classes(parser.parse_args([*given, *settings])).data
    except argparse.ArgumentError as error:
        raise Mistake(f"'{config}': {' '.join(str(error).split())}") from error


def make_part(data: DocumentDataModule, number: int, count: int) -> None:
    """Make a part of the indexes that are missing.

    Args:
        data: whose files are indexed.
        number: of the part, from 1 on.
        count: of parts. Each has every `count`-th file.

    Raises:
        BrokenFile: a file cannot be read at all.
        Mistake: there is no tokenizer, or an index cannot be written.
    """
    if data.tokenizer_path is None:
        raise Mistake("data.tokenizer is missing: give the path of a Hugging Face tokenizer.json")
    tokenizer = Tokenizer(data.tokenizer_path)
    for module in data.modules().values():
        for split in ("train", "val"):
            indexing = module.indexing(split, tokenizer)
            if indexing is None:
                continue
            mine = Indexing(indexing.sidecars[number - 1 :: count], indexing.indexer)
            key, missing = f"{module.key}.{split}", len(missing_of(mine.sidecars))
            print(f"{key}: {len(mine.sidecars) - missing} of {len(mine.sidecars)} files are indexed already")
            lock = module.cache / "locks" / key_of_texts(s.name for s in mine.sidecars)
            make_missing(mine, key, lock)


if __name__ == "__main__":
    main()

"""`python -m data_modules.index CONFIG`: make the indexes that a run needs before it starts, on all cores."""

from __future__ import annotations

import argparse
import logging

from data_modules.base import DocumentDataModule
from data_modules.index.configuration import read_configuration, read_part
from data_modules.index.keys import key_of_texts
from data_modules.index.making import make_missing, missing_of
from data_modules.index.sidecars import Indexing
from lit_mm.mistake import Mistake, ends_with_a_sentence
from lit_mm.tokenizer import Tokenizer


def main(args: list[str] | None = None) -> None:
    """Make the indexes of a configuration, or one part of them."""
    parser = argparse.ArgumentParser("python -m data_modules.index", description=__doc__)
    parser.add_argument("config", help="configuration of a run, such as configs/tiny.yaml, or of data alone")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="one of N parts, as of a SLURM array")
    own, settings = parser.parse_known_args(args)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with ends_with_a_sentence():
        make_part(read_configuration(own.config, settings).data, *read_part(own.part))


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
    for source in data.mixture.sources.values():
        for split in ("train", "val"):
            indexing = source.indexing(split, tokenizer)
            if indexing is None:
                continue
            mine = Indexing(indexing.sidecars[number - 1 :: count], indexing.indexer)
            key, missing = f"{source.key}.{split}", len(missing_of(mine.sidecars))
            print(f"{key}: {len(mine.sidecars) - missing} of {len(mine.sidecars)} files are indexed already")
            lock = source.cache / "locks" / key_of_texts(s.name for s in mine.sidecars)
            make_missing(mine, key, lock)


if __name__ == "__main__":
    main()

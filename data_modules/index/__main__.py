"""`python -m data_modules.index CONFIG`: make the indexes that a run needs before it starts, on all cores."""

from __future__ import annotations

from data_modules.base import DocumentDataModule
from data_modules.index.configuration import read_command, read_configuration
from data_modules.index.keys import key_of_texts
from data_modules.index.making import make_missing, missing_of
from data_modules.index.sidecars import Indexing
from lit_mm.mistake import Mistake, ends_with_a_sentence
from lit_mm.tokenizer import Tokenizer


def main(args: list[str] | None = None) -> None:
    """Make the indexes of a configuration, or one part of them."""
    with ends_with_a_sentence():
        config, settings, number, count = read_command("python -m data_modules.index", __doc__, args)
        make_part(read_configuration(config, settings).data, number, count)


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

"""Files of texts that are read where they are: their kinds, and the parts that are indexed on their own."""

from __future__ import annotations

from dataclasses import dataclass

from data_modules.index.storage import FilePart, InputFile, opened, parts_of

PART = 128 << 20  # bytes of a file that are indexed on their own
PARQUET = ".parquet"
COMPRESSED = (".gz", ".zst")  # such a file is one part, as it can be read from its start alone
LINES = tuple(f"{kind}{packed}" for kind in (".jsonl", ".ndjson", ".json") for packed in ("", *COMPRESSED))
INDEXED = (*LINES, PARQUET)  # endings of files whose texts are read where they are
_PEEKED = 100  # bytes that a JSON array has begun within


@dataclass(frozen=True)
class Lost:
    """Why texts cannot be read.

    Args:
        where: what is counted: `line`, from 1 on, or `row`, from 0 on; empty for a file that cannot be read at all.
        row: number within the part.
        reason: what comes after the number.
        rows: how many are lost.
        unread: bytes of the file that hold rows nobody knows the number of.
    """

    where: str
    row: int
    reason: str
    rows: int = 1
    unread: int = 0


def text_parts(file: InputFile) -> list[FilePart]:
    """The parts of a file that are indexed on their own."""
    return parts_of(file, max(1, file.size) if file.path.lower().endswith(COMPRESSED) else PART)


def is_parquet(file: InputFile) -> bool:
    """Whether a file is Parquet, by its name."""
    return file.path.lower().endswith(PARQUET)


def holds_an_array(file: InputFile) -> bool:
    """Whether a file is one JSON array, and not lines of JSON."""
    if not file.path.lower().endswith(".json"):
        return False
    try:
        with opened(file) as stream:
            return stream.read(_PEEKED).lstrip().startswith(b"[")
    except OSError:  # whoever reads all of it says what is wrong
        return False

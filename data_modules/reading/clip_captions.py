"""Captions of recordings: in files beside them, in the tars that hold them, or in a table that names them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_modules.dataset import BrokenFile
from data_modules.index.listing import Listing
from data_modules.index.storage import ask_each
from data_modules.reading.cached import generated, mapped
from data_modules.reading.columns import Column
from data_modules.reading.entries import JSON_SUFFIXES, read_entries
from data_modules.reading.files import Stamps, has_suffix, listed, stamp
from data_modules.reading.pair_table import tokenize_captions
from data_modules.reading.parquet_columns import PARQUET
from data_modules.reading.recordings import Recording, recording_of
from data_modules.reading.row_files import columns_of, read_rows
from lit_mm.mistake import MissingFile, Mistake, mistake_in
from lit_mm.tokenizer import Tokenizer

FEATURES = {"caption": datasets.Value("string"), "broken": datasets.Value("string")}
ASKED = 256  # captions that are read before they are handed on
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Captions:
    """Where captions are.

    Args:
        source: an ending such as `txt`, or `json.caption` for a key in a JSON file: of the file that has the
            recording's name otherwise. Or the path of a table that names recordings.
        name: column of a table that names a recording: its file's name with or without ending, or its path.
        caption: column of a table that holds the caption.
    """

    source: str
    name: str
    caption: str


class ReadCaptions(NamedTuple):
    """Captions of some recordings.

    Attributes:
        ids: their tokens; none where there is no caption.
        cut: (recordings,) bool, which are longer than is kept.
        broken: what cannot be read.
    """

    ids: Column
    cut: np.ndarray
    broken: list[BrokenFile]


def read_captions(
    recordings: Sequence[Recording],
    captions: Captions,
    tokenizer: Tokenizer,
    longest: int,
    key: str,
    listing: Listing,
) -> ReadCaptions:
    """Each recording's caption, cut to `longest` tokens.

    Args:
        recordings: of a source.
        captions: where they are.
        tokenizer: of them.
        longest: tokens that are kept.
        key: the YAML key, for messages.
        listing: of the run, which looks files up.

    Raises:
        MissingFile: the table is not there.
        BrokenFile: the table cannot be read.
        Mistake: a column is not there.
    """
    table = Path(captions.source).expanduser()
    features = datasets.Features(FEATURES)
    try:
        if table.is_file():
            names = [tuple(recording.name for recording in recordings)]  # one item: the table is read once
            settings = {"table": stamp([table]), "name": captions.name, "caption": captions.caption, "key": key}
            rows = generated(_from_table, names, settings, features)
        elif re.fullmatch(r"\w+(\.[\w.]+)?", captions.source) and not captions.source.endswith(TABLES):
            ending, _, entry = captions.source.partition(".")
            beside = listing.look(
                ("captions", key, ending),
                lambda: ask_each(lambda recording: recording.stamps_beside(ending), recordings, recordings[0].path),
            )
            items = [(recording.place, stamps) for recording, stamps in zip(recordings, beside, strict=True)]
            rows = generated(_beside, items, {"ending": ending, "entry": entry}, features)
        else:
            raise MissingFile(
                f"{key}: captions is '{captions.source}', and there is no such table; give its path, or an ending such "
                "as txt or json.caption of files beside the videos"
            )
    except datasets.exceptions.DatasetGenerationError as error:
        raise mistake_in(error) or error from error
    made = mapped(
        rows,
        tokenize_captions,
        {"tokenizer": tokenizer, "column": "caption", "longest": longest},
        datasets.Features({"ids": datasets.List(datasets.Value("int32")), "cut": datasets.Value("bool")}),
        f"{key}: tokenizing captions",
    )
    reasons = Column(rows, "broken")
    broken = [BrokenFile(*reasons[row].split("\n", 1)) for row in np.flatnonzero(~reasons.missing()).tolist()]
    return ReadCaptions(Column(made, "ids"), Column(made, "cut").all(), broken)


def _contents(items: Sequence[tuple[str, Stamps]], ending: str) -> Iterator[tuple[Recording, bytes]]:
    for start in range(0, len(items), ASKED):
        some = [(recording_of(place), stamps) for place, stamps in items[start : start + ASKED]]
        told = ask_each(lambda item: item[0].content_beside(ending) if item[1] else b"", some, some[0][0].path)
        yield from zip((recording for recording, _ in some), told, strict=True)


def _beside(items: Sequence[tuple[str, Stamps]], ending: str, entry: str) -> Iterator[dict[str, str | None]]:
    for recording, content in _contents(items, ending):
        name = f"{recording.name.rpartition('.')[0]}.{ending}"
        caption, broken = "", None
        try:
            caption = _text(content, entry, name) if content.strip() else ""
        except BrokenFile as error:
            broken = f"{error.path}\n{error.reason}"
        yield {"caption": caption, "broken": broken}


def _text(content: bytes, entry: str, name: str) -> str:
    """A caption as a file has it, or what its JSON says under `entry`, such as `meta.caption`."""
    try:
        text = content.decode("utf-8-sig")
        if not entry:
            return text.strip()
        value: Any = json.loads(text)
        for part in entry.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    except ValueError as error:
        raise BrokenFile(name, error) from error
    return value.strip() if isinstance(value, str) else ""


def _from_table(
    items: Sequence[Sequence[str]], table: Stamps, name: str, caption: str, key: str
) -> Iterator[dict[str, str | None]]:
    captions = _captions_by_name(Path(table[0][0]), name, caption, key)
    called_by: dict[str, str] = {}
    for item in chain.from_iterable(items):
        path = PurePosixPath(item.replace("\\", "/"))
        # By as much of the path as the table has, by name and ending, or by name.
        names = (*("/".join(path.parts[i:]) for i in range(len(path.parts))), path.stem)
        found = next((one for one in names if one in captions), None)
        if found is not None and called_by.setdefault(found, item) != item:
            raise Mistake(
                f"{key}: '{found}' of '{table[0][0]}' may be '{called_by[found]}' or '{item}'; name them by their paths"
            )
        yield {"caption": captions.get(found or "", "").strip(), "broken": None}


def _captions_by_name(file: Path, name: str, caption: str, key: str) -> dict[str, str]:
    captions: dict[str, str] = {}
    for called, written in zip(*_columns(file, {"name_column": name, "caption_column": caption}, key), strict=True):
        if not isinstance(written, str) or not written or called is None:
            continue
        if captions.setdefault(str(called), written) != written:
            raise Mistake(f"{key}: '{file}' has several captions of '{called}'; name each recording once")
    return captions


def _columns(file: Path, wanted: Mapping[str, str], key: str) -> list[Sequence[Any]]:
    """Columns of a table, by the options that name them."""
    if not has_suffix(file, TABLES):
        raise Mistake(f"{key}: captions is '{file}', which is no table; {listed(TABLES)} is read")
    try:
        there = pq.read_schema(file).names if has_suffix(file, (PARQUET,)) else columns_of(file)
        for what, column in wanted.items():
            if column not in there:
                raise Mistake(
                    f"{key}: '{file}' has no column '{column}' ({what}); there are {listed(there, 'and') or 'none'}"
                )
        names = [*wanted.values()]
        if has_suffix(file, (PARQUET,)):
            table = pq.read_table(file, columns=names)
            return [table.column(column).to_pylist() for column in names]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BrokenFile(file, error) from error
    if has_suffix(file, JSON_SUFFIXES):
        entries = list(read_entries(file))
        if broken := next((f"{place} {why}" for place, entry, why in entries if entry is None), None):
            raise BrokenFile(file, broken)
        return [[entry.get(column) for _, entry, _ in entries if entry] for column in names]
    rows = list(read_rows(file, names, optional=names))
    if why := next((why for _, why in rows if why is not None), None):
        raise BrokenFile(file, why)
    return [[values[number] for values, _ in rows] for number in range(len(names))]

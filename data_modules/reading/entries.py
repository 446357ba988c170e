"""Objects of JSON files one by one: JSON Lines, also compressed, or one list of any length."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson", *(f".json{lines}.{how}" for lines in ("", "l") for how in ("gz", "zst")))
CHUNK = 1 << 22  # characters of a list that are read at once
CUT = (OSError, EOFError, zlib.error, pa.ArrowException)

Entry = tuple[str, dict[str, Any] | None, str]  # where it stands, and either the object or why there is none


def read_entries(file: Path) -> Iterator[Entry]:
    """Every object of a file, with where it stands (`line 17`, `entry 17`), or why it cannot be read.

    Args:
        file: one of `JSON_SUFFIXES`. A file that begins with `[` is a list, any other has an object a line.
    """
    with opened(file) as stream:
        yield from entries_in(stream)


def entries_in(stream: IO[bytes]) -> Iterator[Entry]:
    """The same of the bytes of a file; see `read_entries`."""
    place = ""
    try:
        first = stream.peek(1 << 12)[: 1 << 12].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]  # type: ignore[attr-defined]
        for entry in _listed(stream) if first == b"[" else _lines(stream):
            place = entry[0]
            yield entry
    except CUT as error:
        yield f"after {place}" if place else "its first byte", None, f"it cannot be read: {error}"


def opened(file: Path) -> IO[bytes]:
    """The bytes of a file, decompressed."""
    if file.suffix.lower() == ".gz":
        return gzip.open(file, "rb")  # type: ignore[return-value]
    if file.suffix.lower() == ".zst":
        return io.BufferedReader(pa.input_stream(str(file), compression="zstd"))
    return open(file, "rb")


def _lines(stream: IO[bytes]) -> Iterator[Entry]:
    for number, line in enumerate(stream, start=1):
        if line.strip():
            place = f"line {number}"
            try:
                written = line.decode("utf-8-sig")
                yield _entry(place, json.loads(written), written)
            except UnicodeDecodeError as error:
                yield place, None, f"is not UTF-8 ({error.reason} at byte {error.start})"
            except json.JSONDecodeError as error:
                yield place, None, f"is not a JSON object ({error.msg} at character {error.pos})"
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists within lists
                yield place, None, f"is not a JSON object ({error})"


def _entry(place: str, value: Any, written: str) -> Entry:
    if not isinstance(value, dict):
        return place, None, "is not a JSON object"
    if not is_text(written):
        return place, None, "is not UTF-8"
    if "\\ud" in written.lower() and not is_text(json.dumps(value, ensure_ascii=False)):
        return place, None, "holds half of a character, such as \\ud83d without its other half"
    return place, value, ""


def is_text(written: str) -> bool:
    """Whether a string has no half of a character, which also stands for bytes that are not UTF-8."""
    try:
        written.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listed(stream: IO[bytes]) -> Iterator[Entry]:
    """Objects of one list, of which no more than one, and a chunk, is in memory."""
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape")
    decoder, number = json.JSONDecoder(), 0
    buffer = text.read(CHUNK)
    at = buffer.index("[") + 1
    while True:
        at = _skip(buffer, at)
        if at < len(buffer) and buffer[at] == "]":
            return
        try:
            value, stop = decoder.raw_decode(buffer, at)
        except json.JSONDecodeError as error:
            more = text.read(max(CHUNK, len(buffer) - at)) if error.pos + CHUNK > len(buffer) else ""
            if not more:
                yield f"entry {number + 1}", None, f"is not a JSON object ({error.msg}); what follows is not read"
                return
            buffer, at = buffer[at:] + more, 0
            continue
        except (ValueError, RecursionError) as error:
            yield f"entry {number + 1}", None, f"is not a JSON object ({error}); what follows is not read"
            return
        number, written, at = number + 1, buffer[at:stop], stop
        yield _entry(f"entry {number}", value, written)


def _skip(buffer: str, at: int) -> int:
    """Behind spaces and the comma between two objects."""
    while at < len(buffer) and buffer[at] in " \t\r\n,":
        at += 1
    return at

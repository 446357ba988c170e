"""The one table of `data_growth`: a line for each thing that is measured, a column for each library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from tests.benchmarks.growth import exponent

OURS = "lit-mm"
LIBRARIES = (OURS, "datasets", "datasets, streaming", "webdataset", "wids", "streaming", "litdata")
DOCUMENTS = {
    "JSON Lines": "texts in JSON Lines",
    "Parquet of texts": "texts in Parquet",
    "tars": "pictures in tars",
    "Parquet of pictures": "pictures in Parquet",
    "videos": "videos of 10 s",
}
Line = tuple[str, dict[str, str]]


def exponents(results: Mapping[str, Any]) -> dict[str, Any]:
    """How times, bytes and reads grow with the number of documents: 0 is flat, 1 is in proportion."""
    ready = {
        kind: {
            library: {
                "ready": exponent({n: {"all": n * row["seconds"]} for n, row in rows.items()}, "all"),
                "read": exponent(rows, "read"),
            }
            for library, rows in found.items()
        }
        for kind, found in results["ready"].items()
    }
    start = results["start"]
    grown = {key: exponent(start, key) for key in ("seconds", "bytes", "read")} if len(start) > 1 else {}
    return {"ready": ready, "start": grown}


def lines(results: Mapping[str, Any]) -> Iterator[Line]:
    """What is measured, and by library what is found."""
    for kind, found in results["ready"].items():
        yield from _ready(kind, found, results["exponents"]["ready"][kind])
    yield from _loaders(results["a second"])
    yield from _starts(results["start"], results["exponents"]["start"])
    http, shards = results["over HTTP"], results["shards"]
    yield (
        "bytes sent over HTTP for one of a picture that is read; requests at once",
        _own(f"{http['sent']:.2f}; {http['at_once']}"),
    )
    yield (
        "tars of 1,000 that a step of 7,680 out of 10^8 pictures touches; with `shuffle_window: all`",
        _own("{default:,}; {all:,}".format(**shards)),
    )
    yield (
        f"a worker plans a step of 512 ranks of 4 rows of 4,096, of {results['planned']:,} texts; it grows by",
        _own(f"{results['plan']['seconds']:.2f} s; {results['plan']['bytes'] / 1e6:.1f} MB"),
    )


def _own(text: str) -> dict[str, str]:
    return {OURS: text}


def _ready(kind: str, found: Mapping[str, Any], grown: Mapping[str, Any]) -> Iterator[Line]:
    least, most = min(found[OURS]), max(found[OURS])
    last = {library: rows[most] for library, rows in found.items()}
    yield (
        f"{most:,} {DOCUMENTS[kind]}: µs of a core each until any can be read",
        {library: f"{1e6 * row['seconds']:.0f}" for library, row in last.items()},
    )
    clock = [f"{key.split()[1]}: {1e6 * value:.0f}" for key, value in last[OURS].items() if key.startswith("on ")]
    yield "… µs by the clock, by how many cores", _own("; ".join(clock))
    yield (
        "… bytes kept each (of those of the files)",
        {library: f"{row['bytes']:.0f} ({_two_digits(100 * row['share'])} %)" for library, row in last.items()},
    )
    yield "… µs of a core for a read", {library: f"{1e6 * row['read']:.0f}" for library, row in last.items()}
    yield (
        f"… exponents from {least:,} on: until any can be read; a read",
        {library: f"{one['ready']:.2f}; {one['read']:.2f}" for library, one in grown.items()},
    )


def _loaders(found: Mapping[str, Mapping[int, float]]) -> Iterator[Line]:
    """Documents a second; what only we read has a line of its own."""
    said = {name: "; ".join(f"{found[name][n]:,.0f}" for n in sorted(found[name])) for name in found}
    first = f"{OURS}, tars"
    beside = {library: said[library] for library in LIBRARIES if library in said}
    yield "pictures a second from tars by a loader with 1; 2 workers", {OURS: said[first], **beside}
    for name, text in said.items():
        if name.startswith(f"{OURS}, ") and name != first:
            yield f"documents a second, {name.removeprefix(f'{OURS}, ')}", _own(text)


def _starts(found: Mapping[int, Any], grown: Mapping[str, float]) -> Iterator[Line]:
    for size, row in found.items():
        yield (
            f"warm start with {size:,} texts: s of a core to the first batch; memory of a rank; a read",
            _own(f"{row['seconds']:.2f}; {row['bytes'] / 1e6:.0f} MB; {1e6 * row['read']:.0f} µs"),
        )
    if grown:
        yield "… exponents", _own("; ".join(f"{value:.2f}" for value in grown.values()))


def as_table(results: Mapping[str, Any]) -> Table:
    """For a terminal."""
    shown = _libraries(results)
    table = Table("measured", *shown)
    for what, said in lines(results):
        table.add_row(what, *(said.get(library, "") for library in shown))
    return table


def as_markdown(results: Mapping[str, Any]) -> str:
    """For the documentation."""
    shown = _libraries(results)
    rows = [["measured", *shown], ["---"] * (1 + len(shown))]
    rows += [[what, *(said.get(library, "") for library in shown)] for what, said in lines(results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _libraries(results: Mapping[str, Any]) -> list[str]:
    """Those that are there, in their order."""
    found = {library for _, said in lines(results) for library in said}
    return [library for library in LIBRARIES if library in found]


def _two_digits(value: float) -> str:
    """The first two digits of a number: 0.32, 96, 280."""
    return f"{float(f'{value:.2g}'):g}"

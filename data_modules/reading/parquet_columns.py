"""Columns of Parquet files that hold a picture or a text, in every form that they are written in."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from data_modules.reading.files import listed

PARQUET = ".parquet"
TEXT, BYTES, PICTURE = "text", "bytes", "picture"  # PICTURE is a struct of bytes, a path, or both
_FORMS = {
    TEXT: (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null),
    BYTES: (
        *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
        pa.types.is_fixed_size_binary,
    ),
}


def form_of(schema: pa.Schema, name: str) -> str:
    """What a column holds: TEXT, BYTES or PICTURE.

    Args:
        schema: of the file.
        name: of the column.

    Raises:
        ValueError: there is no such column, there are several, or it holds neither texts nor pictures; the reason is
            what comes after the name of the file.
    """
    if (count := schema.names.count(name)) != 1:
        there = f"there are {listed(list(dict.fromkeys(schema.names)), 'and')}"
        raise ValueError(
            f" has {f'{count} columns {name!r}; give each its own name' if count else f'no column {name!r}; {there}'}"
        )
    kind = _value_type(schema.field(name).type)
    found = next((form for form, tests in _FORMS.items() if any(test(kind) for test in tests)), None)
    if found is None and pa.types.is_struct(kind) and {"bytes", "path"} & {field.name for field in kind}:
        found = PICTURE
    if found is None:
        raise ValueError(
            f": column '{name}' holds {kind}, but a string, or a picture as its path, its bytes or {{bytes, path}}, "
            "is expected in every row"
        )
    return found


def path_of_bytes(schema: pa.Schema, name: str) -> str | None:
    """Where a column of pictures has their bytes, in the schema of Parquet; None if it has paths alone.

    Raises:
        ValueError: see `form_of`.
    """
    form = form_of(schema, name)
    if form == BYTES:
        return name
    inside = form == PICTURE and _value_type(schema.field(name).type).get_field_index("bytes") >= 0
    return f"{name}.bytes" if inside else None


def check_text(schema: pa.Schema, name: str) -> None:
    """Refuse a column that holds no texts.

    Raises:
        ValueError: see `form_of`.
    """
    if form_of(schema, name) != TEXT:
        kind = _value_type(schema.field(name).type)
        raise ValueError(f": column '{name}' holds {kind}, but a string in every row is expected")


def _value_type(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind

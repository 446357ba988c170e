"""Conversations of files and tables, read to pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from data_modules.reading.files import Stamps
from data_modules.reading.pages import PageKind, outlines, page_entries, page_groups, page_rows
from data_modules.reading.turns import PICTURES, TURNS, conversation_of


def read_conversations(items: Stamps) -> Iterator[dict[str, Any]]:
    """Conversations of JSON files, see `page_entries`."""
    yield from page_entries(items, conversation_of)


def table_of_conversations(table: pa.Table) -> dict[str, list]:
    """Conversations of rows of a table, see `page_rows`."""
    return page_rows(outlines(table, PICTURES), conversation_of)


def groups_of_conversations(items: Stamps, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Conversations of Parquet files, see `page_groups`."""
    yield from page_groups(items, columns, table_of_conversations)


CONVERSATIONS = PageKind(
    read_conversations, table_of_conversations, groups_of_conversations, (*TURNS, *PICTURES), TURNS
)

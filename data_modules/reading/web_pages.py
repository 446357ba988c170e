"""Pages as OBELICS, OmniCorpus, MINT-1T and MMC4 write them, all as the same texts and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest
from typing import Any

import pyarrow as pa

from data_modules.reading.files import Stamps, listed
from data_modules.reading.page_parts import Page, picture_part
from data_modules.reading.pages import PageKind, outlines, page_entries, page_groups, page_rows

LISTS = ("texts", "images")  # of OBELICS: of the same length, with nothing in one where the other has something
MATCHED = ("text_list", "image_info")  # of MMC4: sentences, and pictures that say which one they belong to
CONTENT = "content"  # parts as in chat files
NEEDED = ("texts", "text_list", CONTENT)


def read_web_pages(items: Stamps) -> Iterator[dict[str, Any]]:
    """Pages of JSON files, see `page_entries`."""
    yield from page_entries(items, web_page_of)


def table_of_web_pages(table: pa.Table) -> dict[str, list]:
    """Pages of rows of a table, see `page_rows`."""
    return page_rows(outlines(table, ("images",)), web_page_of)


def groups_of_web_pages(items: Stamps, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Pages of Parquet files, see `page_groups`."""
    yield from page_groups(items, columns, table_of_web_pages)


WEB_PAGES = PageKind(read_web_pages, table_of_web_pages, groups_of_web_pages, (*LISTS, *MATCHED, CONTENT), NEEDED)


def web_page_of(entry: dict[str, Any]) -> Page:
    """Texts and pictures of an entry in their order; texts that follow each other are one.

    Raises:
        ValueError: what is wrong with it.
    """
    column = next((name for name in NEEDED if entry.get(name) is not None), None)
    if column is None:
        there = f"there are {listed(list(entry), 'and')}" if entry else "it is empty"
        raise ValueError(f"has none of the columns {listed(NEEDED)}; {there}")
    if not isinstance(entry[column], list):
        raise ValueError(f"has no list in '{column}'")
    if column == CONTENT:
        parts, between = [_part(one) for one in entry[CONTENT]], "\n"
    elif column == LISTS[0]:
        parts, between = _aligned(entry["texts"], entry.get("images")), "\n"
    else:
        parts, between = _matched(entry["text_list"], entry.get("image_info") or []), " "
    page: Page = []
    for is_text, group in groupby(parts, lambda part: isinstance(part, str)):
        together = list(group)
        page += [between.join(text for text in together if text.strip())] if is_text else together
    page = [part for part in page if part]
    if not page:
        raise ValueError("has no text and no picture")
    return page


def _aligned(texts: list[Any], images: Any) -> list[Any]:
    images = images if isinstance(images, list) else [None] * len(texts)
    if len(texts) != len(images):
        raise ValueError(
            f"has {len(texts)} texts and {len(images)} images; lists of one length, with null where the other has "
            "something, are expected"
        )
    parts: list[Any] = []
    for text, image in zip_longest(texts, images):
        parts += [picture_part(image)] if image else []
        parts += [_text(text)] if text else []
    return parts


def _matched(sentences: list[Any], pictures: list[Any]) -> list[Any]:
    """Each picture before the sentence that it was matched with, as OpenFlamingo has it."""
    before: dict[int, list[Any]] = {}
    for one in pictures:
        place = one.get("matched_text_index") if isinstance(one, dict) else None
        if not isinstance(place, int) or not 0 <= place < len(sentences):
            raise ValueError(f"has a picture of sentence {place}, but the sentences 0 to {len(sentences) - 1}")
        before.setdefault(place, []).append(picture_part(one.get("image_name") or one.get("raw_url")))
    parts: list[Any] = []
    for place, sentence in enumerate(sentences):
        parts += [*before.get(place, []), _text(sentence)]
    return parts


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"has a text that is {value!r:.40}; a string is expected")
    return value


def _part(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return _text(part.get("text"))
    if kind in ("image", "image_url"):
        named = part.get("image") or part.get("image_url") or part.get("path")
        return picture_part(named.get("url") if isinstance(named, dict) and "url" in named else named)
    raise ValueError(f"has a part of the type {kind!r}; known are text, image and image_url")

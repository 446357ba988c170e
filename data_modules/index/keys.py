"""Where cached files lie, and their names, which are made of all that they depend on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def key_of_texts(texts: Iterable[str]) -> str:
    """32 hex digits over texts and their order; names of files may hold bytes that are no UTF-8."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def cache_folder(folder: str | None) -> Path:
    """The folder of all indexes: the one that is named, or the user's cache folder, `~/.cache/lit-mm`."""
    if folder is not None:
        return Path(folder).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lit-mm"

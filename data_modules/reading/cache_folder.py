"""Folders of caches, which have to be there and let themselves be written to."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lit_mm.mistake import Mistake


def writable(folder: Path, variables: str) -> Path:
    """The folder of a cache, made if it is not there.

    Args:
        folder: its path.
        variables: of the environment that name it where the configuration does not, for the message.

    Raises:
        Mistake: it cannot be made, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Mistake(
            f"data.loader.cache: the cache '{folder}' cannot be written to ({error.strerror}); name a folder that can, "
            f"or set {variables} to one"
        ) from error
    return folder

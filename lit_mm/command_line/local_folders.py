"""What a run writes goes to local disks: a URL where a folder is meant is refused before anything is made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonargparse import Namespace

from lit_mm.mistake import Mistake

_FOLDER = re.compile(r"(?:^|_)(?:dir|dirpath|directory|folder)$")


def check_local(trainer: Mapping[str, Any] | Namespace) -> None:
    """Look at every folder that the trainer, its loggers and its callbacks are to write to.

    Args:
        trainer: its configuration.

    Raises:
        Mistake: one of them is a URL.
    """
    for key, value in _folders(trainer, "trainer"):
        if "://" in value:
            raise Mistake(
                f"{key} is '{value}', but a run writes to local disks; name a folder, and copy it there when the run "
                "has ended"
            )


def _folders(config: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every value that is a folder by its name, with the key that the command line has for it."""
    if isinstance(config, list):
        for number, part in enumerate(config):
            made = part.get("class_path") if isinstance(part, dict | Namespace) else None
            yield from _folders(part, f"{key}.{made.rpartition('.')[2] if made else number}")
    elif isinstance(config, dict | Namespace):
        for name, value in vars(config).items() if isinstance(config, Namespace) else config.items():
            if isinstance(value, str) and _FOLDER.search(name):
                yield f"{key}.{name}", value
            yield from _folders(value, key if name == "init_args" else f"{key}.{name}")

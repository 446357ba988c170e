"""Exported models that come with the package, known by the names of their folders."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def names() -> list[str]:
    """Of all of them."""
    return sorted(folder.name for folder in _HERE.iterdir() if (folder / "model.safetensors").is_file())


def shipped(name: str) -> Path | None:
    """The folder of the model of that name, or None."""
    return _HERE / name if name in names() else None

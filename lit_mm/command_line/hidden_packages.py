"""Finding folders of the user that hide packages of ours, or are hidden by them, before an import fails."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from lit_mm.mistake import Mistake

_INSTALLED = Path(__file__).resolve().parents[2]  # holds lit_mm and the two packages beside it
_PACKAGES = ("callbacks", "data_modules")


def check_packages() -> None:
    """`callbacks` and `data_modules` are ours; a folder or file of the same name where lit-mm is run cannot be used.

    Raises:
        Mistake: it comes before ours, so that lit-mm would not find its own modules.
    """
    for name in _PACKAGES:
        ours, spec = _INSTALLED / name, importlib.util.find_spec(name)
        if spec is not None and spec.origin and not Path(spec.origin).resolve().is_relative_to(ours):
            hiding = spec.origin.removesuffix("/__init__.py")
            raise Mistake(
                f"'{hiding}' hides the package '{name}' of lit-mm; rename it, or run lit-mm in another folder"
            )
        theirs = Path(name).resolve()
        if theirs != ours and (any(theirs.glob("*.py")) or theirs.with_suffix(".py").is_file()):
            text = f"note: lit-mm has a package named '{name}', so nothing in '{theirs}' can be named as a class"
            print(f"{text}; rename the folder to use it", file=sys.stderr)

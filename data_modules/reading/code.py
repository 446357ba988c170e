"""What results depend on, as short texts: settings, and the code that made them."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from lit_mm.tokenizer import Tokenizer

OURS = ("data_modules", "lit_mm")
# Modules that change no result, but how bytes are fetched or mistakes are said.
NO_MATTER = (
    *("data_modules.index.storage", "data_modules.index.ranges", "data_modules.index.range_cache"),
    *("data_modules.dataset", "lit_mm.mistake"),
)


def identity(*parts: object) -> str:
    """16 hex digits over all parts; of a tokenizer its contents count, and not where its file lies."""
    return hashlib.sha256(repr([_plain(part) for part in parts]).encode()).hexdigest()[:16]


def _plain(part: object) -> object:
    if isinstance(part, Tokenizer):
        return part.fingerprint()
    return {name: _plain(value) for name, value in sorted(part.items())} if isinstance(part, Mapping) else part


def code_of(function: Callable[..., Any]) -> str:
    """Hash of the code of a function and of all it uses, without what is a library's, docstrings and comments."""
    found: dict[str, str] = {}
    roots = {*OURS, function.__module__.partition(".")[0]}
    waiting: list[Any] = [function]
    while waiting:
        thing = waiting.pop()
        name = f"{thing.__module__}.{thing.__qualname__}"
        if name in found or thing.__module__.partition(".")[0] not in roots or thing.__module__ in NO_MATTER:
            continue
        tree = _without_docstrings(ast.parse(textwrap.dedent(inspect.getsource(thing))))
        found[name] = ast.unparse(tree)
        scope = vars(sys.modules[thing.__module__])
        for used in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & scope.keys():
            value = scope[used]
            if inspect.isfunction(value) or inspect.isclass(value):
                waiting.append(value)
            elif isinstance(value, str | int | float | tuple):
                found[f"{thing.__module__}.{used}"] = repr(value)
    return identity(found)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree

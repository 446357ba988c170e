"""Which part of the house may know of which: no circle of imports, and arrows that run one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.helpers.program import ROOT

PACKAGES = ("lit_mm", "data_modules", "callbacks")
# A module may import those of its own line and of the lines below it.
LEVELS = (
    ("lit_mm.cli", "lit_mm.export", "lit_mm.__main__", "lit_mm.command_line", "lit_mm.play"),
    ("lit_mm.loading", "lit_mm.module", "lit_mm.prediction", "lit_mm.building", "lit_mm.vision.training", "callbacks"),
    ("lit_mm.loaded_model", "lit_mm.loaded_inputs"),
    ("lit_mm.generation", "lit_mm.training", "lit_mm.parallel"),
    ("lit_mm.model",),
    ("lit_mm.backbone", "lit_mm.flow", "lit_mm.vision", "data_modules"),
    ("lit_mm.sequence", "lit_mm.packing", "lit_mm.tokenizer", "lit_mm.prompt", "lit_mm.mistake", "lit_mm.precision",
     "lit_mm.frozen", "lit_mm.tensor_files", "lit_mm.weights", "lit_mm.packaged",
     "lit_mm.lab", "lit_mm.hub"),
)  # fmt: skip
CONTRACT = LEVELS[-1]
STRANGERS = LEVELS[-2]  # these know nothing of each other
PLAIN = ("lit_mm.model", "lit_mm.backbone", "lit_mm.flow", "lit_mm.vision", *CONTRACT)  # of Lightning
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 60


def _modules() -> dict[str, Path]:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def _imports(file: Path) -> set[str]:
    """Names of all that a module imports anywhere, also within functions and for types alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _room(module: str) -> str:
    """The longest name in LEVELS that a module belongs to."""
    rooms = [room for level in LEVELS for room in level if f"{module}.".startswith(f"{room}.")]
    return max(rooms, key=len, default="")


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """What each module of ours imports, ours and others'."""
    return {name: _imports(file) - {name} for name, file in _modules().items()}


@pytest.fixture(scope="module")
def graph(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Imports of ours by module."""
    return {name: found & imports.keys() for name, found in imports.items()}


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    """All modules that are loaded with one: what it imports, the packages these are in, and so on."""
    seen: set[str] = set()
    waiting = {start}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        parts = name.split(".")
        parents = {".".join(parts[:i]) for i in range(1, len(parts))} & graph.keys()
        waiting |= (graph[name] | parents) - seen
    return seen


def test_no_module_imports_itself_by_way_of_others(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_arrows_run_one_way(graph: dict[str, set[str]]) -> None:
    level = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
    assert set(map(_room, graph)) - {""} == level.keys(), "every room is there"
    assert {name for name in graph if not _room(name)} == {"lit_mm"}, "and every module is in one"
    arrows = [(one, other) for one in graph for other in graph[one] if _room(other)]
    assert not [(one, other) for one, other in arrows if level[_room(other)] < level[_room(one)]]


def test_backbone_flow_vision_and_data_know_nothing_of_each_other(graph: dict[str, set[str]]) -> None:
    for room in STRANGERS:
        inside = [name for name in graph if _room(name) == room]
        others = {_room(other) for name in inside for other in _reached(graph, name)}
        assert others <= {room, "", *CONTRACT}, room


def test_what_computes_knows_nothing_of_lightning(graph: dict[str, set[str]], imports: dict[str, set[str]]) -> None:
    reached = {other for name in graph if _room(name) in PLAIN for other in _reached(graph, name)}
    assert not [name for name in reached if any(i.split(".")[0] == "lightning" for i in imports[name])]


def test_sources_and_their_mixture_know_nothing_of_lightning(
    graph: dict[str, set[str]], imports: dict[str, set[str]]
) -> None:
    reached = _reached(graph, "data_modules.source") | _reached(graph, "data_modules.mixing.mixture")
    assert not [name for name in reached if any(i.split(".")[0] == "lightning" for i in imports[name])]


def test_callbacks_write_to_the_state_of_a_module_alone() -> None:
    """Who reads a LightningModule knows all that callbacks can change there."""
    written = [
        ast.unparse(target)
        for name, file in _modules().items()
        if name.startswith("callbacks.")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    of_modules = [target for target in written if target.startswith(("pl_module.", "module."))]
    assert of_modules
    assert all(target.startswith("pl_module.state.") for target in of_modules), of_modules


def test_files_and_functions_can_be_taken_in_at_once() -> None:
    assert list(_too_long()) == []


def _too_long() -> Iterator[str]:
    for name, file in _modules().items():
        text = file.read_text()
        if text.count("\n") > MOST_LINES:
            yield f"{name} has {text.count(chr(10))} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                if (lines := node.end_lineno - first + 1) > MOST_LINES_OF_A_FUNCTION:  # type: ignore[operator]
                    yield f"{name}.{node.name} has {lines} lines"

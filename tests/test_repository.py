"""The files that people and GitHub look for are there, are valid, and say what is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.program import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text()
VERSION = re.search(r'^version = "(.+)"$', PYPROJECT, re.MULTILINE)[1]  # type: ignore[index]
WEIGHTS = sorted({file.parent for file in (ROOT / "lit_mm").rglob("weights/*/*.safetensors")})
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCHEMAS = {
    **dict.fromkeys(WORKFLOWS, "vendor.github-workflows"),
    **dict.fromkeys((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"), "vendor.github-issue-forms"),
    ROOT / ".github/ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
    ROOT / "CITATION.cff": "vendor.citation-file-format",
}


def targets() -> set[str]:
    """Of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def make_targets_in(text: str) -> set[str]:
    """Targets of `make a b` in a text."""
    return {name for names in re.findall(r"\bmake((?: [a-z-]+)+)", text) for name in names.split()}


def validates(file: Path, schema: str) -> bool:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_one_version_and_one_licence_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    dates = dict(re.findall(r"^## (\S+) - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE))
    assert str(citation["version"]) == VERSION == next(iter(dates)), "the newest release of the changelog"
    assert str(citation["date-released"]) == dates[VERSION]
    assert (ROOT / "LICENSE").read_text().startswith(f"{citation['license']} License\n")
    assert f'license = "{citation["license"]}"' in PYPROJECT
    (paper,) = citation["references"]
    assert paper["url"].endswith("2603.03276")
    assert len(paper["authors"]) == 21


@pytest.mark.parametrize("file", SCHEMAS, ids=lambda file: file.name)
def test_files_for_github_follow_their_schemas(file: Path) -> None:
    assert validates(file, SCHEMAS[file])


def test_a_workflow_with_a_misspelt_key_does_not(tmp_path: Path) -> None:
    wrong = tmp_path / "tests.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on", "run-on"))
    assert not validates(wrong, "vendor.github-workflows")


def test_workflows_run_targets_that_are_there_on_every_supported_python() -> None:
    jobs = {name: job for file in WORKFLOWS for name, job in yaml.safe_load(file.read_text())["jobs"].items()}
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    asked = set().union(*map(make_targets_in, commands))
    assert {"lint", "test", "test-long"} <= asked
    assert asked - {"docs"} <= targets()
    versions = jobs["tests"]["strategy"]["matrix"]["python"]
    assert versions == [f"3.{minor}" for minor in range(10, 14)]
    assert f'requires-python = ">={versions[0]}"' in PYPROJECT


def test_make_alone_lists_every_target() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert set(re.findall(r"^  make (\S+)  +\S", listed, re.MULTILINE)) == targets()


def test_containers_end_in_the_demo() -> None:
    """Parsed, as a test cannot build them."""
    lines = [line.split(maxsplit=1) for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1].isupper()]
    stages = [value.partition(" AS ")[2] for word, value in lines if word == "FROM"]
    assert lines[-1] == ["CMD", '["make", "demo"]']
    after_user = lines[lines.index(["USER", "user"]) + 1 :]
    assert "FROM base" in {" ".join(line) for line in after_user}, "the last stage is the user's too"
    assert (
        make_targets_in("\n".join(value for word, value in lines if word == "RUN" and "apt-get" not in value))
        <= targets()
    )
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["build"]["target"] in stages
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert container["postCreateCommand"] == "make demo"
    assert container["remoteUser"] == "user"


def test_hooks_run_the_versions_that_make_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    versions = {repo["repo"].rpartition("/")[2]: repo["rev"].lstrip("v") for repo in hooks}
    constraints = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert versions["ruff-pre-commit"] == constraints["ruff"]
    assert versions["check-jsonschema"] == constraints["check-jsonschema"]


def test_constraints_agree_with_what_the_packages_ask_for() -> None:
    # Where they do not, pip tries every older version of a package for many minutes, and gives up.
    lines = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#"]
    pinned = {
        canonicalize_name(line.name): next(iter(line.specifier)).version
        for line in lines
        if line.marker is None or line.marker.evaluate()
    }
    wrong = []
    for package in distributions():
        for wanted in map(Requirement, package.requires or ()):
            version = pinned.get(canonicalize_name(wanted.name))
            needed = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
            if needed and version and not wanted.specifier.contains(version, prereleases=True):
                wrong.append(f"{package.name} needs {wanted}, constraints.txt has {version}")
    assert not wrong


@pytest.mark.parametrize("folder", WEIGHTS, ids=lambda folder: folder.name)
def test_every_weight_file_has_a_model_card(folder: Path) -> None:
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "mit"
    assert set(re.findall(r"^## (.+)$", body, re.MULTILINE)) == {
        "How it was made", "Data", "Results", "Limits", "Licence",
    }  # fmt: skip
    assert f"\n# {folder.name}\n" in body
    for config in re.findall(r"--config (configs/\S+?\.yaml)", body):
        assert (ROOT / config).is_file()
    for link in re.findall(r"\]\((.+?)\)", body):
        assert (folder / link).is_file()


def test_the_shipped_weights_are_found() -> None:
    assert [folder.name for folder in WEIGHTS] == ["rae_lab", "rae_tiny", "vae_lab", "vae_tiny", "lab"]

"""The README is short and its links lead somewhere; the pages build without a warning."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import PAGES, blocks
from tests.helpers.program import ROOT

README = ROOT / "README.md"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 200


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#([\w-]+))?\)", README.read_text())
    assert len(links) > 15
    assert [link for link, _ in links if not (ROOT / link).exists()] == []
    assert [anchor for link, anchor in links if anchor and anchor not in _anchors(ROOT / link)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_of_yaml_and_python_are_such(page: Path) -> None:
    for language, text in blocks(page):
        if language == "yaml":
            yaml.safe_load(text)
        elif language == "python":
            compile(text, str(page), "exec")


@pytest.mark.long
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=ROOT, check=True, env=environment)
    page = (tmp_path / "api" / "vision" / "index.html").read_text()
    assert "its features" in page or "num_tokens" in page

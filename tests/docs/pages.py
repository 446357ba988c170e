"""What the README and the pages of docs/ show: their commands, and the files that they tell a reader to write."""

import itertools
import re
import shlex
from pathlib import Path

from tests.helpers.program import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_FILE_NAME = re.compile(r"# ([\w.-]+\.(?:py|yaml|csv|jsonl))\b.*\n")
_ENDS = {"|", "||", "&&", ";", ">", ">>", "2>&1", "2>", "<"}


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of every block of code."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def shell_lines(page: Path) -> list[str]:
    """Lines of its shell blocks, those that end in a backslash joined with the next, without comments."""
    texts = (text.replace("\\\n", " ") for language, text in blocks(page) if language in ("bash", "sh"))
    return [line for text in texts for line in text.splitlines() if line.strip() and not line.startswith("#")]


def commands(page: Path) -> list[list[str]]:
    """Arguments of every call of `lit-mm` in its shell blocks."""
    found = []
    for line in shell_lines(page):
        words = shlex.split(line, comments=True)
        if "lit-mm" in words:
            call = words[words.index("lit-mm") + 1 :]
            found.append(list(itertools.takewhile(lambda word: word not in _ENDS, call)))
    return found


def files(page: Path) -> dict[str, str]:
    """Blocks that begin with a comment which names a file, by that name."""
    named = ((_FILE_NAME.match(text), text) for _, text in blocks(page))
    return {match[1]: text[match.end() :] for match, text in named if match}


def work_in(folder: Path, *pages: Path) -> Path:
    """Make a reader's working folder: the repository's files, and those that the pages tell to write."""
    for name in ("configs", "data", "lit_mm", "data_modules", "callbacks", "docs"):
        (folder / name).symlink_to(ROOT / name)
    for page in pages:
        for name, text in files(page).items():
            (folder / name).write_text(text, encoding="utf-8")
    return folder

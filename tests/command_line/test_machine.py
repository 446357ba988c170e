"""What the machine refuses or lacks is one sentence, or no hindrance: folders, caches, SLURM, a terminal's characters."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from callbacks.monitors.progress import on_terminal
from data_modules.reading.cached import usable_cache
from lit_mm import cli
from lit_mm.export import export
from lit_mm.mistake import Mistake
from tests.data_modules.video_files import moving_picture, write_video
from tests.helpers.program import ROOT, SMALL, environment

TEXT = ["fit", "--config=configs/tiny.yaml", "--data=configs/data/text_only.yaml", *SMALL, "--trainer.max_steps=1"]

pytestmark = pytest.mark.usefixtures("build_once", "cache")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one, and what a run makes of it is undone."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def refusal(monkeypatch: pytest.MonkeyPatch, *args: str) -> str:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        cli.main([*TEXT, *args])
    assert isinstance(ended.value.code, str)
    assert "\n" not in ended.value.code
    return ended.value.code


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("trainer.logger.save_dir", ["--trainer.logger.init_args.save_dir={}"]),
        ("trainer.default_root_dir", ["--trainer.logger=false", "--trainer.default_root_dir={}"]),
        (
            "trainer.callbacks.ModelCheckpoint.dirpath",
            ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.dirpath={}"],
        ),
        ("data.loader.cache", ["--data.loader.cache={}"]),
    ],
)
def test_a_url_where_a_run_writes_is_refused_at_the_start(
    key: str, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(ROOT.iterdir())
    assert f"{key} is 's3://bucket/runs'" in refusal(monkeypatch, *(o.format("s3://bucket/runs") for o in given))
    assert set(ROOT.iterdir()) == before


def test_so_is_an_export_to_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Mistake, match=r"'s3:/bucket/exported' is a URL; export to a folder on a local disk"):
        export(Path("lab"), Path("s3://bucket/exported"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--trainer.logger.save_dir={}/runs", "the run folder '{}/runs/tiny/version_0' cannot be written to (Not a"),
        ("--trainer.default_root_dir={}/runs", "the run folder '{}/runs' cannot be written to (Not a directory); name"),
        (
            "--data.loader.cache={}/cache",
            "data.loader.cache: the cache '{}/cache/locks' cannot be written to (Not a directory",
        ),
    ],
    ids=["logger", "no logger", "cache"],
)
def test_a_folder_that_cannot_be_written_to_is_named_with_its_key(
    given: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    logger = ["--trainer.logger=false"] if "default_root_dir" in given else [f"--trainer.logger.save_dir={tmp_path}"]
    assert words.format(file) in refusal(monkeypatch, *logger, given.format(file))


def test_so_is_the_cache_of_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file/datasets")
    with pytest.raises(
        Mistake, match=r"the cache '.*/file/datasets' cannot be written to \(Not a directory\).*HF_HOME"
    ):
        usable_cache()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--trainer.logger.save_dir={}/runs", "the run folder '{}/runs/tiny/version_0' cannot be written to (No space"),
        ("--data.loader.cache={}/of_lines", "data.loader.cache: '{}/of_lines/files/"),
        ("--data.loader.cache={}/of_a_table", "data.loader.cache: nothing can be written in '{}/of_a_table' (No space"),
    ],
    ids=["run", "lines", "table"],
)
def test_so_is_one_on_a_disk_that_is_full(
    given: str, words: str, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder can be made there, and a file, but nothing be written."""
    train = tmp_path / ("a.json" if "table" in given else "a.jsonl")
    train.write_text(json.dumps([{"text": "the cat"}]) if "table" in given else json.dumps({"text": "the cat"}))
    with contextlib.suppress(OSError), (small_disk / "fill").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    options = [f"--trainer.logger.save_dir={tmp_path}", f"--data.train={train}", "--data.val=null"]
    for _ in range(2):  # what the first leaves is no reason for another sentence
        said = refusal(monkeypatch, *options, given.format(small_disk))
        assert words.format(small_disk) in said
        assert "No space left on device" in said
    assert not list(small_disk.rglob("version_*"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE])
def test_what_the_system_refuses_later_is_one_sentence(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code), "/disk/step=500.ckpt")

    monkeypatch.setattr(cli, "LitCLI", fails)
    with pytest.raises(SystemExit, match=f"^error: '/disk/step=500.ckpt' cannot be used: {os.strerror(code)}; "):
        cli.main(["fit"])


def test_what_lightning_finds_wrong_with_slurm_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NTASKS": "4", "JOB_ID": "7", "JOB_NAME": "train"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    said = refusal(monkeypatch, f"--trainer.logger.save_dir={tmp_path}")
    assert said.startswith("error: trainer: You set `--ntasks=4`")


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_a_rank_that_a_shell_has_left_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning would log and say nothing, as processes other than the first do."""
    for other in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "1")
    said = refusal(monkeypatch, f"--trainer.logger.save_dir={tmp_path}")
    assert said.startswith(f"error: the environment has {name}=1, as of one of several processes, but trainer.devices")
    assert not list(tmp_path.iterdir())


def test_that_of_a_first_process_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process is all that the configuration asks for, however many the shell once had."""
    monkeypatch.chdir(ROOT)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    cli.main([*TEXT, "--data.val=null", "--data.loader.workers=0", f"--trainer.logger.save_dir={tmp_path}"])
    assert list(tmp_path.rglob("data_report.json"))


def test_without_a_folder_for_temporary_files_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    assert refusal(monkeypatch) == (
        "error: there is no folder that temporary files can be written to; make room, or name one with TMPDIR"
    )


def test_a_name_that_is_not_written_as_the_locale_has_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, "--data.train=caf\udce9.jsonl")
    assert said == (
        "error: '--data.train=caf\\xe9.jsonl' is not written in utf-8, as names are in this locale; "
        "rename the file or folder"
    )


def test_so_is_one_in_a_folder_where_it_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such names are left by ZIP files of other systems; paths of videos are kept as text."""
    write_video(tmp_path / os.fsdecode(b"caf\xe9.mp4"), moving_picture(20))
    video = [
        "--data=data_modules.video.VideoDataModule",
        "--data.tokenizer=data/tiny/tokenizer.json",
        "--data.val=null",
    ]
    said = refusal(monkeypatch, *video, f"--data.train={tmp_path}", f"--data.loader.cache={tmp_path}/cache")
    assert said == (
        f"error: '{tmp_path}/caf\\xe9.mp4' is not written in utf-8, as names are in this locale; rename the file or folder"
    )


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_characters_that_a_terminal_lacks_end_nothing(
    errors: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of Japanese texts are shown, and of those that it has none is changed; Python has two ways to start."""
    monkeypatch.chdir(ROOT)
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": "日本語 • café"}), encoding="utf-8")
    terminal = io.TextIOWrapper(io.BytesIO(), "latin-1", errors=errors)
    monkeypatch.setattr(sys, "stdout", terminal)
    cli.main([*TEXT, f"--data.train={tmp_path}/train.jsonl", "--data.val=null", "--print_rows=1"])
    terminal.flush()
    assert "\\u65e5\\u672c\\u8a9e \\u2022 café" in terminal.buffer.getvalue().decode("latin-1")  # type: ignore[attr-defined]
    assert not on_terminal(), "a progress bar has such characters"


@pytest.mark.long
def test_names_in_a_locale_that_knows_ascii_alone(tmp_path: Path) -> None:
    """Files that a folder holds are read, and shown; one that a table names is no broken picture, even under `skip`."""
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines/ä.jsonl").write_text(json.dumps({"text": "日本語"}), encoding="utf-8")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "pictures/é.png")
    (tmp_path / "pictures/metadata.jsonl").write_text('{"file_name": "é.png", "caption": "ä"}', encoding="utf-8")
    runs = []
    for kind, folder in (("text_only", "lines"), ("image_text", "pictures")):
        data = [f"--data=configs/data/{kind}.yaml", "--data.tokenizer=data/tiny/tokenizer.json", "--data.val=null"]
        options = [f"--data.train={tmp_path / folder}", f"--data.loader.cache={tmp_path}/cache", "--print_rows=1"]
        runs.append([*TEXT, *data, *options, "--data.loader.workers=0", "--data.loader.on_error=skip"])
    code = "import json, sys; from lit_mm.cli import main; [main(run) for run in json.loads(sys.argv[1])]"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(runs)],
        cwd=ROOT,
        env={**environment(), "LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
    )
    assert "\\u65e5\\u672c\\u8a9e" in done.stdout
    assert "\\xe9.png' cannot be written in ascii, the encoding of this locale; set PYTHONUTF8=1\n" in done.stderr
    assert done.returncode == 1

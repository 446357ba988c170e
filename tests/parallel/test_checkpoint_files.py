"""A checkpoint takes its name only when it is complete."""

from __future__ import annotations

import errno
from pathlib import Path
from traceback import extract_stack

import pytest
import torch
from torch.distributed.checkpoint import CheckpointException

from lit_mm.mistake import Mistake
from lit_mm.parallel.checkpoint_files import (
    CheckpointFiles,
    by_name,
    by_number,
    complete_checkpoints,
    part_of,
    read_header,
    remove,
    writing,
)


def write(path: Path, text: str, folder: bool) -> None:
    if folder:
        path.mkdir()
        path /= "shard"
    path.write_text(text)


def content(path: Path) -> str:
    return (path / "shard" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("before", [True, False, None])
def test_the_old_one_stays_until_the_new_one_is_complete(tmp_path: Path, before: bool | None, after: bool) -> None:
    """Before and after may be folders or files; None is a link to a folder, as last.ckpt is."""
    path, target = tmp_path / "last.ckpt", tmp_path / "step=1.ckpt"
    if before is None:
        write(target, "old", True)
        path.symlink_to(target.name)
    else:
        write(path, "old", before)
    write(part_of(path), "cut short by a kill", after)
    with writing(path) as part:
        assert not part.exists(), "what was cut short is gone"
        write(part, "new", after)
        assert content(path) == "old"
    assert content(path) == "new"
    left = {file.name for file in tmp_path.iterdir()}
    assert left == ({"last.ckpt", target.name} if before is None else {"last.ckpt"}), "nothing else is left behind"
    assert before is not None or content(target) == "old"


def test_a_failure_leaves_the_old_one_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_text("old")

    def fail() -> None:
        with writing(path) as part:
            part.write_text("half of")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ValueError, match=r"'.*last.ckpt' could not be written \(.*No space left.*MiB left on its disk"):
        fail()
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert path.read_text() == "old"


REFUSED = OSError(errno.EDQUOT, "Disk quota exceeded")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (REFUSED, "Disk quota exceeded"),
        (CheckpointException("save", {1: (REFUSED, extract_stack())}), "Disk quota exceeded"),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704"),
            "torch's writer stopped there",
        ),
    ],
    ids=["system", "another process", "torch"],
)
def test_why_it_could_not_be_written_is_the_systems_word(error: BaseException, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=rf"could not be written \({reason}\), with"), writing(tmp_path / "last.ckpt"):
        raise error


@pytest.mark.parametrize("in_background", [False, True])
def test_a_full_disk_is_said_and_harms_no_earlier_checkpoint(small_disk: Path, in_background: bool) -> None:
    files = CheckpointFiles(in_background)
    small, large = torch.arange(1000.0), torch.zeros(2_000_000)
    files.save_checkpoint({"state_dict": {"weight": small}}, small_disk / "last.ckpt")

    def fail() -> None:
        files.save_checkpoint({"state_dict": {"weight": large}}, small_disk / "last.ckpt")
        files.remove_checkpoint(small_disk / "last.ckpt")  # as of an older one: not before the newer is complete
        files.teardown()

    with pytest.raises(ValueError, match="last.ckpt' could not be written"):
        fail()
    assert torch.equal(files.load_checkpoint(small_disk / "last.ckpt")["state_dict"]["weight"], small)
    assert [file.name for file in small_disk.iterdir()] == ["last.ckpt"]


def test_what_is_written_in_the_background_is_what_was_given(tmp_path: Path) -> None:
    files = CheckpointFiles(in_background=True)
    weight = torch.zeros(1_000_000)
    paths = [tmp_path / f"step={step}.ckpt" for step in range(3)]
    for step, path in enumerate(paths):
        weight.fill_(step)
        files.save_checkpoint({"state_dict": {"weight": weight}}, path)
        weight.fill_(-1)  # training goes on
        if step:
            files.remove_checkpoint(paths[step - 1])
    files.teardown()
    assert complete_checkpoints(tmp_path) == [paths[-1]]
    assert files.load_checkpoint(paths[-1])["state_dict"]["weight"].unique().tolist() == [2.0]


def test_a_folder_is_no_checkpoint_while_it_is_being_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "step=1.ckpt"
    folder.mkdir()
    for name in (".metadata", "meta.pt", "__0_0.distcp"):
        (folder / name).write_text("")
    assert complete_checkpoints(tmp_path) == [folder]

    def killed(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lit_mm.parallel.checkpoint_files.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(folder)
    assert complete_checkpoints(tmp_path) == []
    folder.mkdir()
    remove(folder)
    assert list(tmp_path.iterdir()) == [], "what was left is removed the next time"


def test_half_written_checkpoints_are_not_gone_on_from(tmp_path: Path) -> None:
    files = CheckpointFiles()
    for name in ("step=1.ckpt", "step=2.ckpt"):
        files.save_checkpoint({"state_dict": {}}, tmp_path / name)
    cut = tmp_path / "step=2.ckpt"
    cut.write_bytes(cut.read_bytes()[:-100])
    (tmp_path / "step=3.ckpt").mkdir()
    (tmp_path / ".last.ckpt.part").write_bytes((tmp_path / "step=1.ckpt").read_bytes())
    (tmp_path / ".last.ckpt.old").write_bytes((tmp_path / "step=1.ckpt").read_bytes())
    (tmp_path / "last.ckpt").symlink_to("step=4.ckpt")
    assert {path.name for path in complete_checkpoints(tmp_path)} == {"step=1.ckpt", ".last.ckpt.old"}


def test_states_by_number_and_by_name_are_those_of_the_optimizer() -> None:
    """The second group holds the parameter that the model has first."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    groups = [{"params": [model[1].weight, model[0].weight]}, {"params": [model[0].bias, model[1].bias]}]
    optimizer = torch.optim.AdamW(groups)
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    named = by_name(optimizer.state_dict(), ["1.weight", "0.weight", "0.bias", "1.bias"])
    for name, parameter in model.named_parameters():
        assert torch.equal(named["state"][name]["exp_avg"], 0.1 * parameter.grad)
    assert [group["params"] for group in named["param_groups"]] == [["1.weight", "0.weight"], ["0.bias", "1.bias"]]
    assert by_number(named) == optimizer.state_dict()


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    file = tmp_path / "notes.ckpt"
    file.write_text("not a checkpoint")
    with pytest.raises(ValueError, match="'.*notes.ckpt' cannot be read"):
        read_header(file)

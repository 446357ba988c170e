"""A checkpoint takes its name only when it is complete."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lit_mm.parallel.checkpoint_files import by_name, by_number, read_header, replace, reserve


@pytest.mark.parametrize("folders", [True, False])
def test_the_old_one_stays_until_the_new_one_is_complete(tmp_path: Path, folders: bool) -> None:
    def write(path: Path, text: str) -> None:
        if folders:
            path.mkdir()
            path /= "shard"
        path.write_text(text)

    def content(path: Path) -> str:
        return (path / "shard" if folders else path).read_text()

    path = tmp_path / "last.ckpt"
    write(path, "old")
    write(reserve(path), "cut short by a kill")
    assert content(path) == "old"
    part = reserve(path)
    assert not part.exists(), "what was cut short is gone"
    write(part, "new")
    replace(part, path)
    assert content(path) == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"], "nothing is left behind"


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

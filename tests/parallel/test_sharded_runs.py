"""A run on two sharded processes is the run on one: losses, gradients, averages, validation, checkpoints."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from torchvision.io import decode_image

from lit_mm.cli import main
from lit_mm.export import export
from lit_mm.loading import load
from lit_mm.parallel.checkpoint_files import CheckpointFiles, is_sharded
from lit_mm.precision import product_dtype
from tests.helpers.program import ROOT, SMALL, run
from tests.helpers.recorder import read
from tests.helpers.runs import run_all
from tests.helpers.weigher import weights_held

BACKBONES = ("dense", "modality", "experts")
STEPS, SAVED = 4, 2
SIZES = [a for a in SMALL if "hidden_dim" not in a and "rows" not in a and "val_check" not in a]
SHARDED = ["--trainer.devices=2", "--trainer.strategy=fsdp2", "--data.loader.rows=2"]
OWN = ["--trainer.strategy=lit_mm.parallel.Fsdp2Strategy"]  # whose arguments may follow
BACKGROUND = ["--trainer.plugins+=lit_mm.parallel.CheckpointFiles", "--trainer.plugins.in_background=true"]
WHOLE = ["--trainer.strategy=auto", "--data.loader.rows=4"]


def arguments(folder: Path, backbone: str, *more: str, command: str = "fit") -> list[str]:
    """A short run of four rows a step whose weights are averaged and which clips every gradient."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        command,
        "--config=configs/tiny.yaml",
        f"--model.backbone=configs/backbone/{backbone}.yaml",
        *SIZES,
        "--data.loader.workers=0",
        f"--trainer.max_steps={STEPS}",
        f"--trainer.val_check_interval={STEPS}",
        "--trainer.gradient_clip_val=0.5",
        "--model.schedule.warmup_steps=2",
        f"--trainer.logger.save_dir={folder}",
        "--trainer.callbacks+=tests.helpers.recorder.Recorder",
        f"--trainer.callbacks.folder={folder}",
        "--trainer.callbacks+=tests.helpers.weigher.Weigher",
        f"--trainer.callbacks.folder={folder}",
        "--trainer.callbacks+=callbacks.pages.results_table.ResultsTable",
        "--trainer.callbacks+=callbacks.weight_averaging.WeightAveraging",
        "--trainer.callbacks.decay=0.7",
        "--trainer.callbacks+=ModelCheckpoint",
        f"--trainer.callbacks.dirpath={folder}",
        f"--trainer.callbacks.every_n_train_steps={SAVED}",
        "--trainer.callbacks.save_top_k=-1",
        "--trainer.callbacks.filename={step}",
        *more,
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each backbone on one process and on two."""
    folder = tmp_path_factory.mktemp("runs")
    run_all(folder, [arguments(folder / f"{name}_1", name, *WHOLE) for name in BACKBONES])
    two = [arguments(folder / f"{name}_2", name, *SHARDED) for name in BACKBONES]
    two.append(arguments(folder / "copies", "dense", *SHARDED, *OWN, "--trainer.strategy.copies=2"))
    two.append(arguments(folder / "half", "modality", *SHARDED, "--trainer.precision=bf16-mixed"))
    two.append(arguments(folder / "background", "dense", *SHARDED, *BACKGROUND))
    run_all(folder, two, ranks=2)
    four = ["--trainer.devices=4", "--trainer.strategy=fsdp2", "--data.loader.rows=1"]
    run_all(folder, [arguments(folder / f"{name}_4", name, *four) for name in ("modality", "experts")], ranks=4)
    return folder


def numbers(folder: Path, name: str) -> list[float]:
    """One recorded value per step, averaged over the processes."""
    steps = zip(*read(folder), strict=True)
    return [sum(float.fromhex(rank[name]) for rank in step) / len(step) for step in steps]


def validation(folder: Path) -> dict[str, float]:
    (file,) = folder.rglob("validation.jsonl")
    return json.loads(file.read_text().splitlines()[-1])


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return CheckpointFiles().load_checkpoint(checkpoint, weights_only=False)["state_dict"]


@pytest.mark.long
@pytest.mark.parametrize("backbone", BACKBONES)
def test_two_sharded_processes_do_what_one_does(runs: Path, backbone: str) -> None:
    one, two = runs / f"{backbone}_1", runs / f"{backbone}_2"
    assert numbers(two, "loss") == pytest.approx(numbers(one, "loss"), rel=1e-5)
    assert numbers(two, "gradient_norm") == pytest.approx(numbers(one, "gradient_norm"), rel=1e-4)
    assert min(numbers(one, "gradient_norm")) > 0.5, "every gradient is clipped"
    assert validation(two) == pytest.approx(validation(one), rel=1e-4)
    last = f"step={STEPS}.ckpt"
    assert is_sharded(two / last)
    ours, theirs = weights(two / last), weights(one / last)
    assert ours.keys() == theirs.keys()
    assert any(name.startswith("averaged.") for name in ours)
    for name, value in theirs.items():
        # A step of AdamW is up to 1e-3, whatever the gradient; where that is next to nothing, rounding shows.
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=3e-5, msg=name)


@pytest.mark.long
def test_half_precision_follows_full_precision(runs: Path) -> None:
    half, full = runs / "half", runs / "modality_1"
    assert numbers(half, "loss") == pytest.approx(numbers(full, "loss"), rel=1e-3)
    if product_dtype("cpu") == torch.bfloat16:  # other processors compute both in float32
        assert numbers(half, "loss") != pytest.approx(numbers(full, "loss"), rel=1e-6), "it is another precision"
    assert numbers(half, "gradient_norm") == pytest.approx(numbers(full, "gradient_norm"), rel=0.03)
    assert validation(half) == pytest.approx(validation(full), rel=0.01)
    saved = weights(half / f"step={STEPS}.ckpt")
    assert {value.dtype for value in saved.values()} == {torch.float32}, "the optimizer works in float32"


@pytest.mark.long
@pytest.mark.parametrize("backbone", ["modality", "experts"])
def test_four_processes_do_what_one_does(runs: Path, backbone: str) -> None:
    """Two modalities, and thirty experts to choose from, cannot be shared out over four along the first dimension."""
    one, four = runs / f"{backbone}_1", runs / f"{backbone}_4"
    assert numbers(four, "loss") == pytest.approx(numbers(one, "loss"), rel=1e-5)
    assert numbers(four, "gradient_norm") == pytest.approx(numbers(one, "gradient_norm"), rel=1e-4)
    assert validation(four) == pytest.approx(validation(one), rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("held", ["parameters", "optimizer"])
@pytest.mark.parametrize("backbone", ["modality", "experts"])
def test_what_a_process_holds_falls_as_the_number_of_processes(runs: Path, backbone: str, held: str) -> None:
    (whole,) = weights_held(runs / f"{backbone}_1")
    for ranks in (2, 4):
        shares = [shard[held] for shard in weights_held(runs / f"{backbone}_{ranks}")]
        assert len(shares) == ranks
        assert max(shares) <= 1.02 * whole[held] / ranks  # biases of a router are held by all


@pytest.mark.long
def test_averaged_shards_are_what_is_exported(runs: Path, tmp_path: Path) -> None:
    saved = weights(runs / "experts_2" / f"step={STEPS}.ckpt")
    export(runs / "experts_2" / f"step={STEPS}.ckpt", tmp_path / "model")
    exported = load(tmp_path / "model", "cpu").decoder.model.state_dict()
    assert len(exported) == len(saved) // 2
    assert all(torch.equal(saved[f"averaged.{name}"], value) for name, value in exported.items())


@pytest.mark.long
def test_copies_of_the_model_do_what_one_does(runs: Path) -> None:
    for value in ("loss", "gradient_norm"):
        assert numbers(runs / "copies", value) == pytest.approx(numbers(runs / "dense_1", value), rel=1e-4)
    assert validation(runs / "copies") == pytest.approx(validation(runs / "dense_1"), rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("step", [SAVED, STEPS])
def test_shards_written_in_the_background_are_those_of_their_step(runs: Path, step: int) -> None:
    later, at_once = (weights(runs / name / f"step={step}.ckpt") for name in ("background", "dense_2"))
    assert later.keys() == at_once.keys()
    assert all(torch.equal(later[name], value) for name, value in at_once.items())


@pytest.mark.long
def test_a_disk_that_fills_is_said_by_all_processes(tmp_path: Path, small_disk: Path) -> None:
    output = run_all(tmp_path, [arguments(small_disk, "dense", *SHARDED)], ranks=2, expect=1)
    assert re.search("step=2.ckpt' could not be written .*, with 0.. MiB left on its disk: make room", output)
    assert not list(small_disk.glob("*.ckpt")), "nothing that looks like a checkpoint is left"


@pytest.mark.long
def test_copies_that_do_not_divide_the_processes_are_refused(tmp_path: Path) -> None:
    refused = arguments(tmp_path, "dense", *SHARDED, *OWN, "--trainer.strategy.copies=3")
    output = run_all(tmp_path, [refused], ranks=2, expect=1)
    assert "trainer.strategy.copies is 3, which does not divide the 2 processes" in output


@pytest.mark.long
@pytest.mark.parametrize(("strategy", "damage"), [("auto", "missing"), ("fsdp2", "cut")])
def test_a_damaged_checkpoint_is_named(runs: Path, damage: str, strategy: str, tmp_path: Path) -> None:
    folder = tmp_path / "damaged.ckpt"
    shutil.copytree(runs / "dense_2" / f"step={SAVED}.ckpt", folder)
    shard = max(folder.glob("*.distcp"), key=lambda file: file.stat().st_size)
    if damage == "cut":
        shard.write_bytes(shard.read_bytes()[:1000])
    else:
        shard.unlink()
    args = arguments(tmp_path / "run", "dense", f"--ckpt_path={folder}", *WHOLE, f"--trainer.strategy={strategy}")
    output = run(*args, expect=1)
    assert re.search("error: the checkpoint '.*damaged.ckpt' cannot be read .*another one", output)


@pytest.mark.long
def test_an_incomplete_checkpoint_is_named(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "incomplete.ckpt"
    shutil.copytree(runs / "dense_2" / f"step={SAVED}.ckpt", folder)
    (folder / ".metadata").unlink()
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match="incomplete.ckpt' is no complete checkpoint"):
        main(arguments(tmp_path / "run", "dense", f"--ckpt_path={folder}", *WHOLE))


@pytest.fixture(scope="module")
def resumed(runs: Path) -> Path:
    """Runs of the mixture of experts that go on from, or validate, what another number of processes wrote."""

    def on(name: str, checkpoint: Path, *more: str, command: str = "fit") -> list[str]:
        return arguments(runs / name, "experts", f"--ckpt_path={checkpoint}", *more, command=command)

    def answering(name: str, *more: str) -> list[str]:
        writer = "callbacks.pages.prediction_writer.PredictionWriter"
        own = [f"--trainer.callbacks+={writer}", f"--trainer.callbacks.folder={runs / name / 'predictions'}"]
        return on(name, runs / "experts_2" / saved, *own, f"--data.prompts={prompts}", *more, command="predict")

    saved = f"step={SAVED}.ckpt"
    prompts = runs / "prompts.yaml"
    asked = [{"continue": "The people", "name": f"text{i}", "max_tokens": 4 + i} for i in range(4)]
    prompts.write_text(yaml.safe_dump([*asked, {"draw": "fox", "name": "fox"}, {"draw": "cat", "name": "cat"}]))
    one_file = [
        "--trainer.strategy=lit_mm.parallel.Fsdp2Strategy",
        "--trainer.strategy.save_distributed_checkpoint=false",
    ]
    two = [
        on("one_to_two", runs / "experts_1" / saved, *SHARDED),
        arguments(runs / "gathered", "experts", *SHARDED, *one_file, f"--trainer.max_steps={SAVED}"),
        on("gathered_to_two", runs / "gathered" / saved, *SHARDED),
        on("checked_on_two", runs / "experts_2" / saved, *SHARDED, command="validate"),
        answering("answers_of_two", *SHARDED),
    ]
    one = [
        on("two_to_one", runs / "experts_2" / saved, *WHOLE),
        on("gathered_to_one", runs / "gathered" / saved, *WHOLE),
        on("checked_on_one", runs / "experts_2" / saved, *WHOLE, command="validate"),
        answering("answers_of_one", *WHOLE),
    ]
    run_all(runs, two, ranks=2)
    run_all(runs, one)
    return runs


@pytest.mark.long
@pytest.mark.parametrize("name", ["one_to_two", "two_to_one", "gathered_to_one", "gathered_to_two"])
def test_what_some_processes_wrote_others_go_on_from(resumed: Path, name: str) -> None:
    unbroken = resumed / "experts_1"
    for value in ("loss", "gradient_norm"):
        assert numbers(resumed / name, value) == pytest.approx(numbers(unbroken, value)[SAVED:], rel=1e-4)
    assert validation(resumed / name) == pytest.approx(validation(unbroken), rel=1e-3)


@pytest.mark.long
def test_shards_are_validated_on_any_number_of_processes(resumed: Path) -> None:
    one, two = validation(resumed / "checked_on_one"), validation(resumed / "checked_on_two")
    assert one["step"] == SAVED
    assert one == pytest.approx(two, rel=1e-4)


@pytest.mark.long
def test_shards_answer_prompts_on_any_number_of_processes(resumed: Path) -> None:
    def answers(folder: Path) -> dict[str, str]:
        lines = [line for file in folder.glob("answers*.jsonl") for line in file.read_text().splitlines()]
        return {record["name"]: record["answer"] for record in map(json.loads, lines)}

    one, two = (resumed / f"answers_of_{number}" / "predictions" for number in ("one", "two"))
    assert len(list(two.glob("answers-rank*.jsonl"))) == 2, "prompts are shared out"
    assert answers(one) == answers(two)
    assert answers(one).keys() == {"text0", "text1", "text2", "text3", "fox", "cat"}
    for name in ("fox.png", "cat.png"):
        drawn = [decode_image(str(folder / name)).int() for folder in (one, two)]
        assert (drawn[0] - drawn[1]).abs().max() <= 1


@pytest.mark.long
def test_a_gathered_checkpoint_is_one_file_with_the_same_weights(resumed: Path) -> None:
    saved = f"step={SAVED}.ckpt"
    assert (resumed / "gathered" / saved).is_file()
    gathered, sharded = weights(resumed / "gathered" / saved), weights(resumed / "experts_2" / saved)
    assert gathered.keys() == sharded.keys()
    assert all(torch.equal(gathered[name], value) for name, value in sharded.items())

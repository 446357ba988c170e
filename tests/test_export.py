"""An exported folder answers as the checkpoint does, in plain Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torchvision.io import decode_image

from lit_mm.cli import main
from lit_mm.export import export, load
from lit_mm.parallel.checkpoint_files import read_header
from lit_mm.parallel.exported import CONFIG, CONFIG_KEY, TOKENIZER, WEIGHTS
from tests.helpers.program import ROOT, environment, run

SCRIPT = """
import json, sys
from lit_mm.export import load
from lit_mm.generation.answers import answer
from lit_mm.prompt import Prompt

decoder = load(sys.argv[1])
text = answer(decoder, Prompt("people", "text", ("The people",), max_tokens=12)).text
frames = answer(decoder, Prompt("fox", "image", ("fox",), seed=3)).frames
print(json.dumps({"text": text, "frame": frames[0].tolist()}))
"""


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(trained, folder)
    return folder


@pytest.mark.slow
def test_it_answers_as_predict_does(trained: Path, exported: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.yaml"
    asked = [
        {"continue": "The people", "name": "people", "max_tokens": 12},
        {"draw": "fox", "name": "fox", "seed": 3},
    ]
    prompts.write_text(yaml.safe_dump(asked))
    run(
        "predict",
        f"--ckpt_path={trained}",
        f"--data.prompts={prompts}",
        "--trainer.callbacks+=callbacks.pages.prediction_writer.PredictionWriter",
        f"--trainer.callbacks.folder={tmp_path / 'answers'}",
    )
    command = [sys.executable, "-c", SCRIPT, str(exported)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True, timeout=120)
    ours = json.loads(done.stdout.splitlines()[-1])
    records = [json.loads(line) for line in (tmp_path / "answers/answers.jsonl").read_text().splitlines()]
    assert ours["text"] == records[0]["answer"]
    assert ours["frame"] == decode_image(str(tmp_path / "answers/fox.png")).tolist()


def test_what_belongs_to_the_machine_stays_there(trained: Path, tmp_path: Path) -> None:
    saved = torch.load(trained, weights_only=False)
    config = yaml.safe_load(saved[CONFIG_KEY])
    samples, cache = "callbacks.pages.samples.Samples", "callbacks.latent_cache.LatentCache"
    config["trainer"]["callbacks"] = [
        {"class_path": samples},
        {"class_path": cache, "init_args": {"folder": "somewhere"}},
    ]
    logger = "lightning.pytorch.loggers.TensorBoardLogger"
    config["trainer"]["logger"] = {"class_path": logger, "init_args": {"save_dir": "runs", "name": "a", "version": 3}}
    config["model"]["init_args"]["parallelize"] = {"compile": True}
    saved[CONFIG_KEY] = yaml.safe_dump(config)
    torch.save(saved, tmp_path / "cached.ckpt")
    export(tmp_path / "cached.ckpt", tmp_path / "exported")
    stored = yaml.safe_load((tmp_path / "exported" / CONFIG).read_text())
    assert stored["trainer"]["callbacks"] == [{"class_path": samples}]
    assert stored["trainer"]["logger"]["init_args"] == {"save_dir": "runs", "name": "a"}
    assert "parallelize" not in stored["model"]["init_args"]


def test_it_stores_the_checkpoint_s_weights(trained: Path, exported: Path, tmp_path: Path) -> None:
    saved = torch.load(trained, weights_only=False)["state_dict"]
    stored = load_file(exported / WEIGHTS)
    assert {f"model.{name}" for name in stored} == set(saved)
    assert all(torch.equal(saved[f"model.{name}"], value) for name, value in stored.items())
    export(trained, tmp_path / "half", dtype="bfloat16")
    half = load_file(tmp_path / "half" / WEIGHTS)
    assert all(torch.equal(half[name], value.bfloat16()) for name, value in stored.items())
    weight = load(tmp_path / "half").model.text_head.linear.weight
    assert torch.equal(weight, stored["text_head.linear.weight"].bfloat16().float())


def test_a_folder_in_use_is_refused(trained: Path, exported: Path) -> None:
    before = {path: path.read_bytes() for path in exported.iterdir()}
    with pytest.raises(ValueError, match="is not empty"):
        export(trained, exported)
    assert {path: path.read_bytes() for path in exported.iterdir()} == before


@pytest.mark.slow
def test_the_program_takes_it_as_a_checkpoint(
    trained: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    results = []
    for name, checkpoint in (("file", trained), ("folder", exported)):
        main(
            [
                "validate",
                f"--ckpt_path={checkpoint}",
                f"--trainer.logger.save_dir={tmp_path / name}",
                "--trainer.limit_val_batches=2",
                "--trainer.callbacks+=callbacks.pages.results_table.ResultsTable",
            ]
        )
        (file,) = (tmp_path / name).rglob("validation.jsonl")
        results.append({k: v for k, v in json.loads(file.read_text()).items() if k.startswith("val/")})
    assert results[0]
    assert results[0] == results[1]


def test_the_program_takes_its_text_tokenizer(exported: Path) -> None:
    config = yaml.safe_load(read_header(exported)[CONFIG_KEY])
    assert Path(config["data"]["init_args"]["tokenizer"]) == exported / TOKENIZER


def test_a_fit_cannot_go_on_from_it(exported: Path) -> None:
    with pytest.raises(SystemExit, match="holds weights alone; fit goes on from a checkpoint that fit has written"):
        main(["fit", f"--ckpt_path={exported}"])


def test_another_text_tokenizer_is_refused(trained: Path, tmp_path: Path) -> None:
    export(trained, tmp_path / "model")
    file = tmp_path / "model" / TOKENIZER
    other = json.loads(file.read_text())
    vocabulary = other["model"]["vocab"]
    first, second = "q", "z"
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(other))
    with pytest.raises(ValueError, match="ids of another text tokenizer"):
        load(tmp_path / "model")


def test_another_visual_tokenizer_is_refused(trained: Path, tmp_path: Path) -> None:
    export(trained, tmp_path / "model")
    file = tmp_path / "model" / CONFIG
    config = yaml.safe_load(file.read_text())
    config["model"]["init_args"]["vision"]["init_args"]["patch_size"] = 8
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match="trained on the visual tokens of 'pixels.*but model.vision is"):
        load(tmp_path / "model")

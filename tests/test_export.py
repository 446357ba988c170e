"""An exported folder holds what the checkpoint is used with; tests/test_loading.py has it answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lit_mm.cli import main
from lit_mm.export import export
from lit_mm.export import main as main_of_export
from lit_mm.loading import load
from lit_mm.parallel.checkpoint_files import read_header
from lit_mm.parallel.exported import CONFIG, CONFIG_KEY, TOKENIZER, WEIGHTS, read_config
from tests.helpers.program import ROOT


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(trained, folder)
    return folder


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
    config["data"]["init_args"] |= {"prompts": "mine.yaml", "steering": str(ROOT / "configs/steering/game.yaml")}
    saved[CONFIG_KEY] = yaml.safe_dump(config)
    torch.save(saved, tmp_path / "cached.ckpt")
    export(tmp_path / "cached.ckpt", tmp_path / "exported")
    stored = yaml.safe_load((tmp_path / "exported" / CONFIG).read_text())
    assert stored["trainer"]["callbacks"] == [{"class_path": samples}]
    assert stored["trainer"]["logger"]["init_args"] == {"save_dir": "runs", "name": "a"}
    assert "parallelize" not in stored["model"]["init_args"]
    assert not {"prompts", "steering"} & stored["data"]["init_args"].keys()
    assert read_config(tmp_path / "exported")["data"]["init_args"]["steering"] == f"{tmp_path}/exported/steering.yaml"
    assert (tmp_path / "exported/steering.yaml").read_text() == (ROOT / "configs/steering/game.yaml").read_text()


def test_it_stores_the_checkpoint_s_weights(trained: Path, exported: Path, tmp_path: Path) -> None:
    saved = torch.load(trained, weights_only=False)["state_dict"]
    stored = load_file(exported / WEIGHTS)
    assert {f"model.{name}" for name in stored} == set(saved)
    assert all(torch.equal(saved[f"model.{name}"], value) for name, value in stored.items())
    export(trained, tmp_path / "half", dtype="bfloat16")
    half = load_file(tmp_path / "half" / WEIGHTS)
    assert all(torch.equal(half[name], value.bfloat16()) for name, value in stored.items())
    weight = load(tmp_path / "half", "cpu").decoder.model.text_head.linear.weight
    assert torch.equal(weight, stored["text_head.linear.weight"].bfloat16().float())


def test_the_program_says_what_it_has_written(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = torch.load(trained, weights_only=False)["state_dict"]
    parameters = sum(value.numel() for name, value in saved.items() if name.startswith("model."))
    main_of_export(trained, tmp_path / "model")
    written = f"exported '{tmp_path}/model': {parameters / 1e6:.1f} M parameters in float32, "
    assert capsys.readouterr().out.startswith(written)


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

"""Training from stored latents is training from pictures; latents that are not finite stop with the picture's name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from callbacks.latent_cache import LatentCache
from lit_mm.cli import main
from lit_mm.mistake import Mistake
from lit_mm.vision import Pixels
from tests.data_modules.video_files import moving_picture, write_video
from tests.helpers.program import ROOT, SMALL, kill_when, start
from tests.helpers.recorder import read
from tests.helpers.runs import run_all

STEPS = 4
PIXELS = "--model.vision=configs/vision/pixels.yaml"
SHARDS = "[0-9a-f]*.safetensors"  # whole ones: others have names that begin with a dot
RED = 3  # the picture that has a red first pixel


@pytest.fixture(scope="session")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YAML of all four kinds of data, a few files each; the same files train and validate."""
    folder = tmp_path_factory.mktemp("mixture")
    (folder / "pairs").mkdir()
    lines = []
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        if i == RED:
            pixels[0, 0] = (255, 0, 0)
        Image.fromarray(pixels).save(folder / "pairs" / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "caption": f"picture number {i}"}))
    (folder / "pairs" / "metadata.jsonl").write_text("\n".join(lines))
    for i in range(2):
        video = write_video(folder / "videos" / f"{i}.mp4", moving_picture(24, 64, 64, seed=i), g="8")
        rows = [f"{f},{3 * f},{f % 7},{f}" for f in range(24)]
        video.with_suffix(".csv").write_text("\n".join(["frame,x,y,angle", *rows]))
    (folder / "text.txt").write_text("It was the best of times, it was the worst of times. " * 40)

    def source(kind: str, name: str, **options: object) -> dict[str, object]:
        return {"class_path": kind, "init_args": {"train": str(folder / name), "val": str(folder / name), **options}}

    sources = {
        "text": source("data_modules.text.TextSource", "text.txt", window=256),
        "pairs": source("data_modules.image_text.ImageTextSource", "pairs", caption_first=0.5),
        "clips": source("data_modules.video.VideoSource", "videos", fps=5, frames=3, stride=1),
        "actions": source("data_modules.action_video.ActionVideoSource", "videos", context=2),
    }
    data = {
        "class_path": "data_modules.mixture.MixtureDataModule",
        "init_args": {
            "tokenizer": str(ROOT / "data" / "tiny" / "tokenizer.json"),
            "loader": {"row_length": 256, "rows": 2, "val_documents": 4},
            "weights": {"text": 0.1, "pairs": 0.5, "clips": 0.2, "actions": 0.2},
            "sources": sources,
        },
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    return folder / "data.yaml"


TABLE = "--trainer.callbacks+=callbacks.pages.results_table.ResultsTable"
SAVING = [
    "--trainer.callbacks+=ModelCheckpoint",
    "--trainer.callbacks.save_top_k=-1",
    "--trainer.callbacks.filename={step}",
]


def arguments(mixture: Path, folder: Path, *args: str, cache: Path | None = None, vision: str = PIXELS) -> list[str]:
    """A short fit that notes down every loss in `folder` and validates at its end."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        "fit",
        "--config=configs/tiny.yaml",
        *SMALL,
        f"--data={mixture}",
        vision,
        "--data.loader.workers=0",
        f"--trainer.max_steps={STEPS}",
        f"--trainer.val_check_interval={STEPS}",
        f"--trainer.logger.save_dir={folder}",
        "--trainer.callbacks+=tests.helpers.recorder.Recorder",
        f"--trainer.callbacks.folder={folder}",
        *cache_arguments(cache),
        *args,
    ]


def cache_arguments(cache: Path | None) -> list[str]:
    if cache is None:
        return []
    return [
        "--trainer.callbacks+=callbacks.latent_cache.LatentCache",
        f"--trainer.callbacks.folder={cache}",
        "--trainer.callbacks.shard_size=0.5",  # ten pictures as pixels
    ]


def watched(folder: Path, every: int) -> list[str]:
    """Save every so many steps, write down what validation says, and draw samples."""
    saving = [f"--trainer.callbacks.every_n_train_steps={every}", f"--trainer.callbacks.dirpath={folder}"]
    samples = ["--trainer.callbacks+=callbacks.pages.samples.Samples", "--trainer.callbacks.documents=2"]
    return [TABLE, *samples, "--trainer.callbacks.max_tokens=2", *SAVING, *saving]


def losses(folder: Path) -> list[str]:
    """Of every step, exactly."""
    return [record["loss"] for record in read(folder)[0]]


def validated(folder: Path) -> dict[str, float]:
    """Every metric of the run's only validation, without when it was."""
    (file,) = folder.rglob("validation.jsonl")
    (line,) = file.read_text().splitlines()
    return {name: value for name, value in json.loads(line).items() if name.startswith("val/")}


def complaint(args: list[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(args)
    assert isinstance(exit_.value.code, str)
    sentence, *how_to_go_on = exit_.value.code.splitlines()
    assert sentence.startswith("error: ")
    assert [line.startswith("stopped by an error at step") for line in how_to_go_on] in ([], [True])
    return sentence


@pytest.fixture(autouse=True, scope="module")
def _in_the_repository() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def from_pictures(mixture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run without a cache."""
    folder = tmp_path_factory.mktemp("pictures")
    main(arguments(mixture, folder, *watched(folder, every=2)))
    return folder


@pytest.fixture(scope="module")
def from_cache(mixture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the same run with a cache, which lies in its `latents`."""
    folder = tmp_path_factory.mktemp("cache")
    main(arguments(mixture, folder, *watched(folder, every=2), cache=folder / "latents"))
    return folder


# ---- the same training


def test_every_loss_is_the_same_to_the_last_bit(from_pictures: Path, from_cache: Path) -> None:
    """The weights after a step follow from all that was trained on, so equal losses mean equal gradients."""
    assert len(losses(from_pictures)) == STEPS
    assert losses(from_cache) == losses(from_pictures)
    assert validated(from_cache) == validated(from_pictures)


def test_samples_are_drawn_from_pictures_and_look_the_same(from_pictures: Path, from_cache: Path) -> None:
    sheets = []
    for folder in (from_pictures, from_cache):
        (top,) = folder.rglob("samples")
        sheets.append({str(f.relative_to(top)): f.read_bytes() for f in top.rglob("*.png")})
    assert {name.rpartition("/")[0] for name in sheets[0]} >= {"pairs/drawn", "pairs/written", "actions/drawn"}
    assert sheets[0] == sheets[1]


def test_once_made_no_file_is_decoded_and_nothing_encoded(
    mixture: Path, from_pictures: Path, from_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a picture was decoded")

    def encode_none(vision: Pixels, images: Tensor) -> Tensor:  # a batch of text has no frames
        assert len(images) == 0, "a picture was encoded"
        return torch.zeros(0, vision.num_tokens, vision.channels)

    monkeypatch.setattr("data_modules.reading.pair_table.read_picture", refuse)
    monkeypatch.setattr("data_modules.reading.decoding.VideoReader.read", refuse)
    monkeypatch.setattr("lit_mm.vision.Pixels.encode", encode_none)
    main(arguments(mixture, tmp_path, "--data.loader.workers=2", cache=from_cache / "latents"))
    assert losses(tmp_path) == losses(from_pictures)


DUAL = """
class_path: lit_mm.vision.Dual
init_args:
  read: {class_path: lit_mm.vision.Pixels, init_args: {image_size: 64, patch_size: 16}}
  draw: {class_path: lit_mm.vision.Rae, init_args: {folder: rae_tiny}}
"""


def test_an_encoder_and_two_tokenizers_at_once(mixture: Path, tmp_path: Path) -> None:
    """To the last bit where this was written; whether those depend on how many pictures an encoder is shown at once is
    the matrix library's affair.
    """
    (tmp_path / "dual.yaml").write_text(DUAL)
    eye = f"--model.vision={tmp_path / 'dual.yaml'}"
    workers = "--data.loader.workers=2"
    main(arguments(mixture, tmp_path / "pictures", TABLE, vision=eye))
    main(arguments(mixture, tmp_path / "cache", TABLE, workers, cache=tmp_path / "latents", vision=eye))
    found, expected = ([float.fromhex(loss) for loss in losses(tmp_path / name)] for name in ("cache", "pictures"))
    assert found == pytest.approx(expected, rel=1e-6, abs=0)
    assert validated(tmp_path / "cache") == pytest.approx(validated(tmp_path / "pictures"), rel=1e-6, abs=0)


@pytest.mark.parametrize("cached", [False, True])
def test_a_run_goes_on_with_or_without_the_cache(
    cached: bool, mixture: Path, from_pictures: Path, from_cache: Path, tmp_path: Path
) -> None:
    checkpoint = f"--ckpt_path={from_pictures if cached else from_cache}/step=2.ckpt"
    main(arguments(mixture, tmp_path, checkpoint, cache=from_cache / "latents" if cached else None))
    assert losses(tmp_path) == losses(from_pictures)[2:]


def test_validating_makes_and_uses_the_cache_of_validation_only(from_pictures: Path, tmp_path: Path) -> None:
    checkpoint = f"--ckpt_path={from_pictures}/step={STEPS}.ckpt"
    logs = f"--trainer.logger.save_dir={tmp_path}"
    main(["validate", checkpoint, "--trainer.callbacks=[]", logs, TABLE, *cache_arguments(tmp_path / "latents")])
    assert {f.name for f in (tmp_path / "latents").glob("*/*")} == {"encoder.json", "val"}
    assert validated(tmp_path) == validated(from_pictures)


@pytest.mark.slow
def test_a_killed_run_leaves_what_two_ranks_go_on_with(mixture: Path, from_cache: Path, tmp_path: Path) -> None:
    cache = tmp_path / "latents"
    process = start(*arguments(mixture, tmp_path / "killed", cache=cache))
    kill_when(process, lambda: any(cache.rglob(SHARDS)))
    made = {file: file.stat().st_mtime_ns for file in cache.rglob(SHARDS)}
    assert made
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_steps=1"]
    run_all(tmp_path, [arguments(mixture, tmp_path / "two", *two, cache=cache)], ranks=2)
    assert {file: file.stat().st_mtime_ns for file in made} == made
    whole = from_cache / "latents"
    shards = sorted(f.relative_to(whole) for f in whole.rglob(SHARDS))
    assert sorted(f.relative_to(cache) for f in cache.rglob(SHARDS)) == shards
    assert all(torch.equal(*(load_file(f / shard)["latents"] for f in (cache, whole))) for shard in shards)


def test_tokenizers_have_latents_of_their_own(mixture: Path, from_cache: Path, tmp_path: Path) -> None:
    cache = shutil.copytree(from_cache / "latents", tmp_path / "latents")
    made = {f: f.stat().st_mtime_ns for f in cache.rglob("*") if f.is_file()}
    other = ["--model.vision.patch_size=32", "--trainer.max_steps=1", "--data.weights.clips=0"]
    main(arguments(mixture, tmp_path / "run", *other, cache=cache))
    there = {f: f.stat().st_mtime_ns for f in cache.rglob("*") if f.is_file()}
    assert made.items() <= there.items()
    told = {f.parent.name: json.loads(f.read_text()) for f in cache.glob("*/encoder.json")}
    assert {name.split("-")[0] + ":" + one["tokenizer"].partition(":")[2] for name, one in told.items()} == {
        "pixels:64/16",
        "pixels:64/32",
    }


# ---- what is refused


def test_a_disk_that_is_too_small_is_refused(mixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    said = complaint(arguments(mixture, tmp_path, cache=tmp_path / "latents"))
    needed = re.search(r"still needs ([\d.]+) MB, but its disk has 5 MB free", said)
    assert needed is not None
    # Of each video of 24 frames at 10 a second, clips at 5 a second show every other frame, actions show all.
    pictures = 2 * (24 + 2 * 12 + 2 * 24)
    assert float(needed[1]) == pytest.approx(pictures * 16 * 768 * 4 / 1e6, rel=0.01)


def test_pictures_that_are_cut_anew_are_refused(mixture: Path, tmp_path: Path) -> None:
    crop = "--data.sources.pairs.crop={rule: random, short_side: 96}"
    said = complaint(arguments(mixture, tmp_path, crop, cache=tmp_path / "latents"))
    assert "source 'pairs' cuts another part out of it each time it is drawn: leave the callback out, or set" in said


def test_a_model_without_a_visual_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"needs a model with a frozen visual tokenizer, but LightningModule has none"):
        LatentCache(str(tmp_path)).setup(Trainer(logger=False), LightningModule(), "fit")


# ---- NaN


NAN_FOR_RED = [
    "--model.vision=tests.helpers.tokenizers.NanForRed",
    "--model.vision.image_size=64",
    "--model.vision.patch_size=16",
]


def test_a_picture_of_which_the_tokenizer_makes_nan_is_named(mixture: Path, tmp_path: Path) -> None:
    """And nothing that it has spoilt is saved."""
    args = [*watched(tmp_path, every=1), "--trainer.max_steps=40", *NAN_FOR_RED]
    said = complaint(arguments(mixture, tmp_path, *args))
    assert f"in the latents of '{mixture.parent}/pairs/{RED}.png' (visual tokenizer 'pixels:64/16')" in said
    for checkpoint in tmp_path.glob("*.ckpt"):
        weights = torch.load(checkpoint, weights_only=False)["state_dict"]
        assert all(w.isfinite().all() for w in weights.values())


def test_it_is_named_and_not_stored_while_a_cache_is_made(mixture: Path, tmp_path: Path) -> None:
    said = complaint([*arguments(mixture, tmp_path, cache=tmp_path / "latents"), *NAN_FOR_RED])
    assert f"in the latents of '{mixture.parent}/pairs/{RED}.png' (visual tokenizer 'pixels:64/16')" in said
    stored = [load_file(f)["latents"] for f in (tmp_path / "latents").rglob(SHARDS)]
    assert all(latents.isfinite().all() for latents in stored)


def test_nan_in_validation_is_named(mixture: Path, tmp_path: Path) -> None:
    only_validated = ["--data.weights.pairs=0", "--data.loader.val_documents=24"]
    said = complaint([*arguments(mixture, tmp_path, *only_validated), *NAN_FOR_RED])
    assert len(losses(tmp_path)) == STEPS
    assert f"'{mixture.parent}/pairs/{RED}.png'" in said


def test_a_cache_with_nan_names_the_picture(mixture: Path, from_cache: Path, tmp_path: Path) -> None:
    cache = shutil.copytree(from_cache / "latents", tmp_path / "latents")
    file = next(cache.glob("*/train/clips/*.safetensors"))
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    tensors["latents"][:, 3, 5] = float("nan")
    save_file(tensors, file, metadata)
    said = complaint(arguments(mixture, tmp_path, "--trainer.max_steps=40", cache=cache))
    assert re.search(rf"the latent cache has NaN or infinity for '{mixture.parent}/videos/\d.mp4, frame \d+'", said)
    assert "(visual tokenizer 'pixels:" in said
    assert "delete" in said

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional as F

from callbacks.evaluation.picture_evaluation import PictureEvaluation, ranks_of_own
from data_modules.image_text import ImageTextDataModule
from data_modules.mixing.loader_config import LoaderConfig
from data_modules.reading.pictures import read_picture
from lit_mm.backbone.layout import SequenceLayout
from lit_mm.model.heads import VisualTokens
from lit_mm.module import LitMultimodal
from lit_mm.vision import Pixels
from tests.helpers.program import ROOT
from tests.helpers.small_model import Thumbnails, small_model

PAIRS = 7


@pytest.fixture
def data(tmp_path: Path) -> ImageTextDataModule:
    source = ROOT / "data/tiny/image_text/val"
    pairs = [json.loads(line) for line in (source / "metadata.jsonl").read_text().splitlines()][:PAIRS]
    folder = tmp_path / "pairs"
    folder.mkdir()
    for pair in pairs:
        (folder / pair["file_name"]).write_bytes((source / pair["file_name"]).read_bytes())
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(pair) for pair in pairs))
    vision = Pixels()
    return ImageTextDataModule(
        train=str(folder),
        val=str(folder),
        tokenizer=str(ROOT / "data/tiny/tokenizer.json"),
        loader=LoaderConfig(row_length=128, rows=1, workers=0),
        image_size=vision.image_size,
        tokens_per_frame=vision.num_tokens,
    )


@pytest.fixture
def module() -> LitMultimodal:
    return small_model()


def pairs_of(data: ImageTextDataModule) -> list[tuple[Tensor, str]]:
    folder = Path(str(data.mixture.sources["image_text"].paths["val"]))
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    return [(read_picture(folder / (p := json.loads(line))["file_name"], 64), p["caption"]) for line in lines]


def validate(module: LitMultimodal, data: ImageTextDataModule) -> dict[str, float]:
    evaluation = PictureEvaluation(Thumbnails(), pairs=PAIRS)
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=[evaluation], enable_progress_bar=False, enable_model_summary=False
    )
    trainer.validate(module, data, verbose=False)
    return module.validation_results


def test_ranks_are_those_of_a_double_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(9, 5, generator=generator) + 3
    drawn = true + torch.randn(9, 5, generator=generator)
    mean = true.mean(0)
    expected = []
    for i in range(9):
        near = [float(F.cosine_similarity(drawn[i] - mean, true[j] - mean, dim=0)) for j in range(9)]
        expected.append(sum(value > near[i] for value in near))
    assert ranks_of_own(drawn, true).tolist() == expected
    assert len(set(expected)) > 2
    assert ranks_of_own(true, true).tolist() == [0] * 9


def test_true_pictures_are_their_own_nearest_and_perfect_drawings_too(
    module: LitMultimodal, data: ImageTextDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = validate(module, data)
    assert plain["val/image_text/reencoded_top5_thumbnails"] == 1.0
    assert plain["val/image_text/reencoded_rank_thumbnails"] == 0.0
    assert plain["val/image_text/drawn_rank_thumbnails"] > 0.1  # the model is not trained

    truth = iter([torch.stack([picture for picture, _ in pairs_of(data)])])
    monkeypatch.setattr("lit_mm.generation.decoding.Decoder.draw_frames", lambda self, prefixes, seeds: next(truth))
    perfect = validate(module, data)
    assert perfect["val/image_text/drawn_rank_thumbnails"] == 0.0


def test_the_picture_behind_the_caption_is_the_right_one_and_then_the_next(
    module: LitMultimodal, data: ImageTextDataModule
) -> None:
    """Against the logits of one pair at a time, with the head made of what the picture's tokens left in the stream."""
    found = validate(module, data)
    tokenizer = module.decoder().tokenizer
    pairs = pairs_of(data)
    captions = tokenizer.encode_batch([caption for _, caption in pairs])
    losses: dict[int, list[float]] = {0: [], 1: []}
    for shift in losses:
        for i in range(PAIRS):
            ids = captions[i]
            latents = module.vision.encode(pairs[(i + shift) % PAIRS][0][None])
            tokens = torch.tensor(
                [[tokenizer.bos_id, tokenizer.boi_id, *[tokenizer.pad_id] * 16, tokenizer.eoi_id, *ids]]
            )
            length = tokens.shape[1]
            frame_ids = torch.full((1, length), -1, dtype=torch.int32)
            frame_ids[0, 2:18] = 0
            layout = SequenceLayout(torch.zeros(1, length, dtype=torch.int32), frame_ids, torch.arange(length)[None])
            with torch.no_grad():
                places, nothing = torch.arange(2, 18)[None], torch.zeros(0, dtype=torch.int64)
                visual = VisualTokens(latents, torch.ones(1), places, nothing)
                logits = module.model.logits(module.model.hidden(tokens, layout, visual).hidden[0, 18:])
            targets = torch.tensor([*ids, tokenizer.eos_id])
            losses[shift] += F.cross_entropy(logits, targets, reduction="none").tolist()
    for shift, name in ((0, "caption_perplexity"), (1, "caption_perplexity_shuffled")):
        expected = math.exp(sum(losses[shift]) / len(losses[shift]))
        assert found[f"val/image_text/{name}"] == pytest.approx(expected, rel=1e-4)
    assert found["val/image_text/caption_perplexity"] != found["val/image_text/caption_perplexity_shuffled"]

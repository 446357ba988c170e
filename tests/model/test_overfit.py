"""Memorise a handful of pairs, then sample: the right picture for each caption, the right caption for each picture."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from data_modules.image_text import ImageTextDataModule
from data_modules.mixing.loader_config import LoaderConfig
from data_modules.reading.pictures import read_picture
from data_modules.recipes.tokenizer import train
from lit_mm.backbone import ModalityFeedForward, Transformer
from lit_mm.flow.matching import FlowMatching
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.answers import answer
from lit_mm.module import LitMultimodal
from lit_mm.prompt import Prompt
from lit_mm.training.schedule import WarmupCosine
from lit_mm.vision import Rae
from tests.helpers.program import ROOT

CAPTIONS = ["strawberry", "octopus", "rocket", "tennis", "violin", "cactus"]
VOCABULARY = 300  # the embeddings of a large one would take most of the time


def handful(folder: Path) -> dict[str, str]:
    """A picture folder with the first of the demo's drawings that have these captions; file by caption."""
    source = ROOT / "data/tiny/image_text/train"
    pairs = [json.loads(line) for line in (source / "metadata.jsonl").read_text().splitlines()]
    chosen = {p["caption"]: p["file_name"] for p in pairs if p["caption"] in CAPTIONS}
    folder.mkdir()
    for name in chosen.values():
        shutil.copy(source / name, folder / name)
    lines = [json.dumps({"file_name": name, "caption": caption}) for caption, name in chosen.items()]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return {caption: str(folder / name) for caption, name in chosen.items()}


@pytest.mark.long
def test_memorised_pairs_come_back_from_both_sides(tmp_path: Path) -> None:
    pairs = handful(tmp_path / "pairs")
    assert len(pairs) >= 5
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(train((tmp_path / "pairs",), VOCABULARY))
    seed_everything(0)
    vision = Rae(folder="rae_tiny")
    model = LitMultimodal(
        backbone=lambda vocabulary: Transformer(
            vocabulary, dim=256, depth=2, heads=4, kv_heads=2, feed_forward=lambda dim: ModalityFeedForward(dim, 512)
        ),
        vision=vision,
        vocab_size=VOCABULARY,
        flow=FlowMatching("v"),
        sampler=FlowSampler("euler", steps=20, guidance_scale=2.0),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.95)),
        schedule=WarmupCosine(warmup_steps=20),
    )
    data = ImageTextDataModule(
        train=str(tmp_path / "pairs"),
        caption_first=0.6,
        tokenizer=str(tokenizer),
        loader=LoaderConfig(row_length=256, rows=1, workers=0),
        image_size=vision.image_size,
        tokens_per_frame=vision.num_tokens,
    )
    trainer = Trainer(
        accelerator="cpu",
        max_steps=500,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        limit_val_batches=0,
    )
    trainer.fit(model, data)
    model.eval()
    decoder = model.decoder()

    truth = torch.stack([read_picture(path, vision.image_size) for path in pairs.values()])
    latents = vision.encode(truth)
    drawn = [answer(decoder, Prompt(caption, "image", (caption,), seed=i)) for i, caption in enumerate(pairs)]
    distances = torch.cdist(vision.encode(torch.cat([d.frames for d in drawn])).flatten(1), latents.flatten(1))
    assert distances.argmin(1).tolist() == list(range(len(pairs)))
    # Not merely the nearest of them: far nearer than any other.
    others = distances.masked_fill(torch.eye(len(pairs), dtype=torch.bool), float("inf")).min(1).values
    assert torch.all(distances.diagonal() < 0.6 * others)

    for picture, caption in zip(truth, pairs, strict=True):
        said = answer(decoder, Prompt(caption, "text", (picture,), max_tokens=12))
        assert said.text.strip() == caption

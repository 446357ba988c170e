from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from data_modules.image_text import ImageTextDataModule
from data_modules.mixing.loader_config import LoaderConfig
from lit_mm.mistake import Mistake
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, PackedRow, Text
from lit_mm.tokenizer import Tokenizer
from lit_mm.training.schedule import WarmupCosine
from lit_mm.vision import Rae
from lit_mm.vision.encoder import TimmEncoder
from lit_mm.vision.training.distillation import MaskedDistillation, PixelReconstruction
from lit_mm.vision.training.lit_siglip import LitSiglip
from lit_mm.vision.training.siglip import (
    Siglip,
    SiglipConfig,
    contrastive_loss,
    equal_captions,
    retrieval_recall,
    save_encoder,
    sigmoid_loss,
)
from lit_mm.vision.training.vary import Variation
from tests.helpers.pairs import ARGS, CONFIG, gradients, one_of_two, pairs, siglip
from tests.helpers.processes import on_processes
from tests.vision.conftest import randomised


def loss_by_hand(images: Tensor, captions: Tensor, ids: Tensor, temperature: float, bias: float) -> float:
    """Algorithm 1 of SigLIP as a double loop, but that equal captions belong to each other's pictures."""
    total = 0.0
    for i, image in enumerate(images):
        for j, caption in enumerate(captions):
            z = 1 if ids[i].tolist() == ids[j].tolist() else -1
            logit = temperature * float(image @ caption) + bias
            total += math.log1p(math.exp(-z * logit))
    return total / len(images)


def test_the_loss_is_that_of_a_double_loop_and_equal_captions_belong_together() -> None:
    model = siglip().double()
    images, captions, lengths = pairs(11)
    with torch.no_grad():
        model.log_temperature.fill_(1.3)
        model.bias.fill_(-2.0)
        seen, said = model.embed_images(images.double()), model.embed_captions(captions, lengths)
        loss = contrastive_loss(model, seen, said, captions)
    assert len({tuple(c.tolist()) for c in captions}) < 11
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(11).double())
    assert float(loss) == pytest.approx(loss_by_hand(seen, said, captions, math.exp(1.3), -2.0), rel=1e-12)


def test_it_starts_as_in_the_paper() -> None:
    model = siglip()
    scores = model.logits(torch.eye(3), torch.eye(3))
    torch.testing.assert_close(scores, 10 * torch.eye(3) - 10)
    assert sigmoid_loss(scores, torch.eye(3).bool()).item() == pytest.approx(
        3 * math.log(2) + 6 * math.log1p(math.e**-10)
    )


def test_equal_captions_are_found() -> None:
    _, some, _ = pairs(9, seed=1)
    _, others, _ = pairs(7, seed=2)
    expected = [[a.tolist() == b.tolist() for b in others] for a in some]
    assert equal_captions(some, others).tolist() == expected
    assert any(any(row) for row in expected)


def test_padding_behind_a_caption_changes_nothing() -> None:
    model = siglip()
    _, captions, lengths = pairs(5)
    with torch.no_grad():
        short, long = (model.embed_captions(captions[:, :count], lengths) for count in (3, 24))
        other = model.embed_captions(captions.masked_fill(torch.arange(24) >= lengths[:, None], 7), lengths)
    torch.testing.assert_close(short, long)
    torch.testing.assert_close(other, long)


@pytest.mark.slow
def test_two_processes_with_unequal_parts_do_the_same_as_one_with_all(tmp_path: Path) -> None:
    found, _ = on_processes(one_of_two, 2, tmp_path)
    model = siglip().double()
    images, captions, lengths = pairs(11)
    loss = contrastive_loss(
        model, model.embed_images(images.double()), model.embed_captions(captions, lengths), captions
    )
    loss.backward()
    expected = {"loss": loss.detach(), **gradients(model)}
    assert found.keys() == expected.keys()
    assert {"bias", "log_temperature", "text.head.weight", "vision.patch_embed.proj.weight"} < expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-12, msg=name)


def test_recall_is_that_of_sorting() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(20, 15, generator=generator)
    belongs = torch.rand(20, 15, generator=generator) < 0.15
    for k in (1, 5, 40):
        hits = [
            any(belongs[i, j] for j in sorted(range(15), key=lambda j: -float(scores[i, j]))[:k]) for i in range(20)
        ]
        assert retrieval_recall(scores, belongs, k) == pytest.approx(np.mean(hits))


def test_the_saved_tower_is_read_by_the_tokenizers_and_gives_the_trained_tokens(tmp_path: Path) -> None:
    model = siglip()
    randomised(model.vision)
    with torch.no_grad():
        model.vision.norm.weight.fill_(1)
        model.vision.norm.bias.zero_()
    folder = save_encoder(CONFIG, model.vision, tmp_path / "encoder")
    described = json.loads((folder / "config.json").read_text())
    assert described == {"encoder": CONFIG.encoder, "image_size": 32, "encoder_args": ARGS}
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = model.tokens(model.normalised(images / 255))
        tokens = TimmEncoder(CONFIG.encoder, 32, str(folder / "model.safetensors"), ARGS)(images / 255)
    torch.testing.assert_close(tokens, expected)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(3, 16), atol=1e-5, rtol=0)
    rae = Rae(encoder=CONFIG.encoder, image_size=32, pretrained=str(folder / "model.safetensors"), encoder_args=ARGS)
    torch.testing.assert_close(rae.encode(images), expected)


def test_an_encoder_that_cannot_pool_or_does_not_exist_is_refused() -> None:
    with pytest.raises(Mistake, match="model.siglip.encoder is 'vit_huge_siglop', which timm does not know"):
        Siglip(SiglipConfig("vit_huge_siglop"))
    with pytest.raises(Mistake, match="'vit_tiny_patch16_224' does not pool its tokens by attention"):
        Siglip(SiglipConfig("vit_tiny_patch16_224", image_size=32, encoder_args={"depth": 1}))
    with pytest.raises(Mistake, match="is not a timm ViT with these encoder_args: .*widht"):
        Siglip(SiglipConfig(CONFIG.encoder, image_size=32, encoder_args={"widht": 1}))


def test_the_teacher_is_the_moving_average_of_the_student_and_sees_everything() -> None:
    model = siglip()
    distillation = MaskedDistillation(model, mask_ratio=0.5, decay=0.9)
    expected = {name: p.detach().clone() for name, p in model.vision.named_parameters()}
    for step in range(3):
        randomised(model.vision, seed=step)
        distillation.update(model)
        for name, p in model.vision.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * p.detach()
    for name, p in distillation.teacher.named_parameters():
        torch.testing.assert_close(p, expected[name], msg=name)
        assert not p.requires_grad
    assert not distillation.train().teacher.training


def test_hidden_patches_are_hidden_and_only_they_count() -> None:
    model = siglip()
    distillation = MaskedDistillation(model, mask_ratio=0.25)
    with torch.no_grad():
        distillation.mask_patch.fill_(0.5)
    images = torch.randn(2, 3, 32, 32)
    given: list[Tensor] = []
    model.vision.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    model.tokens = lambda normalised: (given.append(normalised), model.vision.forward_features(normalised))[1]  # type: ignore[method-assign]
    loss = distillation(model, images, torch.Generator().manual_seed(0))
    (covered,) = given
    hidden = F.unfold((covered != images).float(), 8, stride=8).mean(1) > 0.9
    assert hidden.sum(1).tolist() == [4, 4]
    patches, originals = (F.unfold(x, 8, stride=8).transpose(1, 2) for x in (covered, images))
    assert torch.equal(patches[~hidden], originals[~hidden])
    assert bool((patches[hidden] == 0.5).all())
    with torch.no_grad():
        wanted = distillation.teacher.forward_features(images)  # type: ignore[operator]
        seen = distillation.predictor(model.vision.forward_features(covered))  # type: ignore[operator]
        errors = [(seen[i, n] - wanted[i, n]).square().mean() for i in range(2) for n in range(16) if hidden[i, n]]
    torch.testing.assert_close(loss, torch.stack(errors).mean())


def test_reconstruction_compares_each_token_with_its_own_patch() -> None:
    model = siglip()
    reconstruction = PixelReconstruction(model)
    image = torch.zeros(1, 3, 32, 32)
    image[:, :, 8:16, 16:24] = 1.0  # the patch in the second row, third column: number 6
    with torch.no_grad():
        reconstruction.head.weight.zero_()
        reconstruction.head.bias.zero_()
        tokens = torch.zeros(1, 16, 64)
        assert float(reconstruction(tokens, image)) == pytest.approx(1 / 16)
        reconstruction.head.weight[:, 0] = 1.0
        tokens[0, 6, 0] = 1.0
        assert float(reconstruction(tokens, image)) == 0


def test_variation_is_small_never_mirrors_and_comes_from_its_seed() -> None:
    images = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    images[:, :, :, :16] = 200  # bright on the left
    vary = Variation()
    varied = vary(images, torch.Generator().manual_seed(0))
    assert torch.equal(varied, vary(images, torch.Generator().manual_seed(0)))
    assert not torch.equal(varied, vary(images, torch.Generator().manual_seed(1)))
    assert 0 <= float(varied.min()) <= float(varied.max()) <= 1
    assert bool((varied[:, :, :, :8].mean((1, 2, 3)) > 0.3 + varied[:, :, :, 24:].mean((1, 2, 3))).all())
    edges = (varied[:, 0, 16] > varied[:, 0, 16].mean(1, keepdim=True)).sum(1)
    assert edges.min() < 16 < edges.max()
    assert torch.equal(Variation(0, 0, 0)(images, torch.Generator()), images / 255)


# ---- training, on pictures of one colour that are called by it

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 230), "yellow": (240, 230, 20)}
SHADES = ("pale", "dark")


@pytest.fixture
def data(tmp_path: Path) -> ImageTextDataModule:
    """Eight pictures with captions, the same for both splits."""
    from tokenizers import Tokenizer as HuggingFaceTokenizer
    from tokenizers import models, pre_tokenizers, trainers

    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for name, colour in COLOURS.items():
        for shade in SHADES:
            value = np.array(colour) // 2 + (120 if shade == "pale" else 0)
            Image.fromarray(np.full((32, 32, 3), value, dtype=np.uint8)).save(folder / f"{shade}_{name}.png")
            lines.append(json.dumps({"file_name": f"{shade}_{name}.png", "caption": f"{shade} {name}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    words = HuggingFaceTokenizer(models.WordLevel(unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator([*COLOURS, *SHADES], trainers.WordLevelTrainer(special_tokens=["?"]))
    words.save(str(tmp_path / "tokenizer.json"))
    return ImageTextDataModule(
        train=str(folder),
        val=str(folder),
        caption_first=0.5,
        condition_dropout=0.0,
        tokenizer=str(tmp_path / "tokenizer.json"),
        loader=LoaderConfig(row_length=64, rows=1, workers=0),
        image_size=32,
        tokens_per_frame=1,
    )


def fit(folder: Path, data: ImageTextDataModule, steps: int, **arguments: Any) -> LitSiglip:
    torch.manual_seed(0)
    lit = LitSiglip(
        CONFIG,
        optimizer=lambda p: torch.optim.AdamW(p, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0),
        schedule=WarmupCosine(warmup_steps=5),
        **arguments,
    )
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=steps,
        val_check_interval=steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(lit, data)
    return lit


def test_it_learns_which_name_belongs_to_which_picture(tmp_path: Path, data: ImageTextDataModule) -> None:
    lit = fit(tmp_path, data, 120, variation=Variation(light=0))
    assert (lit.image_size, lit.tokens_per_frame) == (32, 1)
    results = lit.validation_results
    kinds = [f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5)]
    expected = {f"val/image_text/{name}" for name in [*kinds, "sigmoid_loss"]}
    assert results.keys() == expected | {"val/temperature", "val/bias"}
    assert results["val/image_text/image_to_text_r1"] == 1
    assert results["val/image_text/text_to_image_r1"] == 1
    assert lit.distillation is None
    assert lit.reconstruction is None
    # Independently of the module: the saved pairs' loss by a double loop, from pictures read by hand.
    words = Tokenizer(tmp_path / "tokenizer.json")
    names = [f"{shade} {name}" for name in COLOURS for shade in SHADES]
    files = [tmp_path / "pictures" / f"{name.replace(' ', '_')}.png" for name in names]
    images = torch.stack([torch.from_numpy(np.array(Image.open(f))).permute(2, 0, 1) for f in files])
    ids = torch.tensor([words.encode(name) for name in names])
    model = lit.siglip.eval()
    with torch.no_grad():
        seen, said = model.embed_images(images / 255), model.embed_captions(ids, torch.full((8,), 2))
    by_hand = loss_by_hand(seen, said, ids, results["val/temperature"], results["val/bias"])
    assert results["val/image_text/sigmoid_loss"] == pytest.approx(by_hand, rel=1e-4)
    saved = load_file(tmp_path / "encoder" / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in model.vision.state_dict().items())


def test_further_targets_are_learned_too_and_the_last_norm_stays_plain(
    tmp_path: Path, data: ImageTextDataModule
) -> None:
    lit = fit(tmp_path, data, 30, distillation_weight=1.0, teacher_decay=0.9, reconstruction_weight=1.0)
    assert lit.distillation is not None
    assert lit.reconstruction is not None
    moved = [
        not torch.equal(mine, its)
        for mine, its in zip(lit.distillation.teacher.parameters(), lit.siglip.vision.parameters(), strict=True)
    ]
    assert sum(moved) > 10
    assert torch.equal(lit.siglip.vision.norm.weight, torch.ones(64))
    saved = load_file(tmp_path / "encoder" / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in lit.distillation.teacher.state_dict().items())
    pictures = torch.stack([torch.full((3, 32, 32), value) for value in (0.1, 0.9)])
    images = lit.siglip.normalised(pictures)
    with torch.no_grad():
        error = lit.reconstruction(lit.siglip.eval().tokens(images), images)
    assert float(error) < 0.5 * float(images.var())


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(tmp_path: Path, data: ImageTextDataModule) -> None:
    lit = LitSiglip(SiglipConfig(CONFIG.encoder, 32, ARGS, vocab_size=4))
    trainer = pl.Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(Mistake, match=r"model\.siglip\.vocab_size is 4 but the tokenizer '.*' has 12 entries"):
        trainer.fit(lit, data)


def test_text_alone_cannot_be_learned_from_and_empty_rows_are_passed_over_in_validation() -> None:
    words = Document((Text(torch.tensor([1, 2, 3])),), "speeches")
    batch = pack_rows(
        [PackedRow((words,), 0, 0)], length=8, tokens_per_frame=1, image_size=32, pad_id=0, sources=("speeches",)
    )
    lit = LitSiglip(CONFIG)
    with pytest.raises(Mistake, match="a batch has no picture with a caption; data.sources are speeches"):
        lit.training_step(batch, 0)
    lit.validation_step(batch, 0)
    images, captions, ids = lit.held_out["speeches"][0]
    assert (len(images), len(captions), len(ids)) == (0, 0, 0)

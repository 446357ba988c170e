"""Training an encoder of pictures from their captions: `lit-mm fit --config configs/siglip/tiny.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lit_mm.mistake import Mistake
from lit_mm.sequence import PackedBatch
from lit_mm.training.optimization import parameter_groups
from lit_mm.training.run_folder import run_folder
from lit_mm.training.schedule import WarmupCosine
from lit_mm.vision.training.distillation import MaskedDistillation, PixelReconstruction
from lit_mm.vision.training.pairs import Pairs, caption_pairs
from lit_mm.vision.training.siglip import (
    Siglip,
    SiglipConfig,
    contrastive_loss,
    equal_captions,
    gather_rows,
    retrieval_recall,
    save_encoder,
    sigmoid_loss,
)
from lit_mm.vision.training.vary import Variation

# Adam moves a weight by about the learning rate a step, too little for temperature and bias in a run of few thousand.
SCALAR_SPEED = 10.0


class LitSiglip(pl.LightningModule):
    """Learns which caption belongs to which picture, by the sigmoid loss over the pairs of all processes.

    The pairs are those of the ordinary packed rows: every frame with the text of its document. All variation of the
    pictures of a step comes from the seeds of its batch. When fitting ends the folder `encoder` is written under the
    run folder; `pretrained: …/encoder/model.safetensors` of `Rae` or of an RAE's training loads it. With
    self-distillation, it is the teacher that is validated and written: it averages the student, and is better.

    Args:
        siglip: sizes of both towers.
        optimizer: AdamW by default; weight decay is applied to matrices only.
        schedule: of the learning rate.
        variation: how pictures are changed before they are looked at.
        distillation_weight: weight of the masked self-distillation; 0 leaves it out.
        mask_ratio: share of patches that the student does not see.
        teacher_decay: share of the teacher that a step keeps.
        reconstruction_weight: weight of the reconstruction of pixels from single tokens; 0 leaves it out.
    """

    def __init__(
        self,
        siglip: SiglipConfig,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1),
        schedule: WarmupCosine | None = None,
        variation: Variation | None = None,
        distillation_weight: float = 0.0,
        mask_ratio: float = 0.5,
        teacher_decay: float = 0.996,
        reconstruction_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.siglip = Siglip(siglip)
        self.longest = siglip.longest_caption
        self.image_size = siglip.image_size
        # No visual token is read from a row here, so a picture takes the least of it and a row holds more pairs.
        self.tokens_per_frame = 1
        self.make_optimizer = optimizer
        self.schedule = schedule or WarmupCosine()
        self.variation = variation or Variation()
        self.distillation_weight, self.reconstruction_weight = distillation_weight, reconstruction_weight
        self.distillation = MaskedDistillation(self.siglip, mask_ratio, teacher_decay) if distillation_weight else None
        self.reconstruction = PixelReconstruction(self.siglip) if reconstruction_weight else None
        self.held_out: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
        self.validation_results: dict[str, float] = {}

    @property
    def encoder(self) -> nn.Module:
        """The picture tower that is validated and written."""
        return self.siglip.vision if self.distillation is None else self.distillation.teacher

    def setup(self, stage: str) -> None:
        """Check that the text tower knows every token.

        Raises:
            Mistake: its vocabulary is smaller than the tokenizer's.
        """
        tokenizer = self.trainer.datamodule.format.tokenizer  # type: ignore[attr-defined]
        if tokenizer.vocab_size > self.siglip.config.vocab_size:
            raise Mistake(
                f"model.siglip.vocab_size is {self.siglip.config.vocab_size} but the tokenizer '{tokenizer.path}' has "
                f"{tokenizer.vocab_size} entries; set it to at least that"
            )

    def training_step(self, batch: PackedBatch, batch_idx: int) -> Tensor:
        """The sigmoid loss and what else has a weight.

        Raises:
            Mistake: no frame of the batch has text in its document.
        """
        pairs = caption_pairs(batch, self.longest)
        if len(pairs.images) == 0:
            raise Mistake(f"a batch has no picture with a caption; data.sources are {', '.join(batch.sources)}")
        generator = torch.Generator(self.device).manual_seed(batch.seeds[0])
        images = self.siglip.normalised(self.variation(pairs.images, generator))
        tokens = self.siglip.tokens(images)
        loss = contrastive_loss(
            self.siglip, self.siglip.embed_tokens(tokens), self._embed_captions(pairs), pairs.captions
        )
        self.log("train/sigmoid_loss", loss, prog_bar=True)
        if self.distillation is not None:
            distilled = self.distillation(self.siglip, images, generator)
            self.log("train/distillation_loss", distilled)
            loss = loss + self.distillation_weight * distilled
        if self.reconstruction is not None:
            reconstructed = self.reconstruction(tokens, images)
            self.log("train/reconstruction_loss", reconstructed)
            loss = loss + self.reconstruction_weight * reconstructed
        self.log("train/temperature", self.siglip.log_temperature.exp())
        self.log("train/bias", self.siglip.bias)
        self.log("train/pairs", float(len(pairs.images)))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """The teacher follows the student."""
        if self.distillation is not None:
            self.distillation.update(self.siglip)

    def _embed_captions(self, pairs: Pairs) -> Tensor:
        if len(pairs.captions) == 0:  # the last rows of a validation on many processes; PyTorch's attention takes some
            return self.siglip.text.head.weight.new_zeros(0, self.siglip.text.head.out_features)
        used = int(pairs.lengths.max())
        return self.siglip.embed_captions(pairs.captions[:, :used], pairs.lengths)

    def validation_step(self, batch: PackedBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Embed the pairs; they are compared when all are there."""
        pairs = caption_pairs(batch, self.longest)
        images, captions = self.siglip.embed_images(pairs.images / 255, self.encoder), self._embed_captions(pairs)
        for index, source in enumerate(batch.sources):  # all of them on all processes, for they are gathered
            here = pairs.source_ids == index
            self.held_out.setdefault(source, []).append((images[here], captions[here], pairs.captions[here]))

    def on_validation_epoch_end(self) -> None:
        """Log loss and retrieval of each source.

        As `val/<source>/sigmoid_loss` over all its pairs at once, and `image_to_text_r1`, `image_to_text_r5`,
        `text_to_image_r1`, `text_to_image_r5`: the share of pictures (captions) with a caption (picture) that belongs
        to them among the 1 or 5 likeliest of that source's held-out ones.
        """
        results = {"val/temperature": float(self.siglip.log_temperature.exp()), "val/bias": float(self.siglip.bias)}
        for source, parts in self.held_out.items():
            images, captions, ids = (gather_rows(torch.cat(column)) for column in zip(*parts, strict=True))
            if len(images) == 0:
                continue
            scores, belongs = self.siglip.logits(images, captions), equal_captions(ids, ids)
            results[f"val/{source}/sigmoid_loss"] = float(sigmoid_loss(scores, belongs) / len(images))
            for k in (1, 5):
                results[f"val/{source}/image_to_text_r{k}"] = retrieval_recall(scores, belongs, k)
                results[f"val/{source}/text_to_image_r{k}"] = retrieval_recall(scores.T, belongs.T, k)
        self.held_out = {}
        self.validation_results = results
        self.log_dict(results, rank_zero_only=True)

    def configure_optimizers(self) -> Any:
        """Decay on matrices only, temperature and bias ten times as fast, warm-up and cosine by step."""
        groups = parameter_groups(self)
        scalars = [p for p in groups[-1]["params"] if p.ndim == 0]
        groups[-1]["params"] = [p for p in groups[-1]["params"] if p.ndim]
        groups.append({"params": scalars, "weight_decay": 0.0})
        optimizer = self.make_optimizer(groups)
        optimizer.param_groups[-1]["lr"] *= SCALAR_SPEED
        scheduler = self.schedule(optimizer, self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_end(self) -> None:
        """Write the folder `encoder` under the run folder."""
        run = run_folder(self.trainer) or Path(self.trainer.default_root_dir)
        if self.trainer.is_global_zero:
            save_encoder(self.siglip.config, self.encoder, run / "encoder")

"""Two models that learn the same captioned pictures, each as its own project trains it: ours and the peer's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from callbacks.weight_averaging import WeightAveraging
from lit_mm.building import VOCABULARY_MULTIPLE
from lit_mm.generation.decoding import Decoder
from lit_mm.module import LitMultimodal
from lit_mm.packing import pack_rows
from lit_mm.precision import product_dtype
from lit_mm.sequence import Document, Frame, PackedBatch, PackedRow, Text
from lit_mm.tokenizer import Tokenizer
from lit_mm.vision import VisualTokenizer

DROPOUT = 0.1  # of captions, in both, which guidance needs
GUIDANCE, EVALUATIONS = 3.0, 25  # of both samplers; Euler's method
DECAY, STEPS = 0.998, 12_000  # of our average and our schedule, as in configs/lab.yaml
RATES = (8e-4, 3e-4)  # of the peer's examples
SHAPES = ({"dim": 224, "depth": 2, "heads": 4}, {"dim": 168, "depth": 4, "heads": 4})  # as many parameters as ours


@dataclass(frozen=True)
class Pairs:
    """Captions as token ids, and their pictures as latents (pairs, tokens, channels)."""

    ids: list[Tensor]
    latents: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def some(self, indices: Sequence[int]) -> Pairs:
        """Those pairs."""
        return Pairs([self.ids[i] for i in indices], self.latents[list(indices)])


class Learner(Protocol):
    """A model in training."""

    model: nn.Module

    def step(self, pairs: Pairs, number: int) -> float:
        """Learn from a batch; the loss of the flow."""

    def draw(self, captions: Sequence[Tensor]) -> Tensor:
        """Latents (captions, tokens, channels) drawn with averaged weights."""


class Ours:
    """The model of a YAML file, trained as `lit-mm fit --config configs/lab.yaml` trains it.

    Args:
        config: YAML of the model.
        vision: YAML of its visual tokenizer.
        tokenizer: of the captions.
    """

    def __init__(self, config: Path, vision: Path, tokenizer: Tokenizer) -> None:
        torch.manual_seed(0)
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(LightningModule, "model", required=True)
        given = {
            "vision": vision,
            "vocab_size": -(-tokenizer.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE,
            "sampler.steps": EVALUATIONS,
            "sampler.guidance_scale": GUIDANCE,
        }
        arguments = [f"--model={config}", *(f"--model.{key}={value}" for key, value in given.items())]
        self.module: LitMultimodal = parser.instantiate_classes(parser.parse_args(arguments)).model
        self.module.compute_dtype = product_dtype("cpu")
        self.module.state.averages_weights = True
        self.module.configure_model()
        self.model, self.tokenizer = self.module.model, tokenizer
        self.trainer: Any = SimpleNamespace(
            world_size=1, accumulate_grad_batches=1, max_steps=STEPS, global_step=0, gradient_clip_algorithm=None
        )
        self.module.trainer = self.trainer
        optimizers = self.module.configure_optimizers()
        self.optimizer, self.schedule = optimizers["optimizer"], optimizers["lr_scheduler"]["scheduler"]
        self.averaging = WeightAveraging(DECAY)
        self.dropout = torch.Generator().manual_seed(0)

    @property
    def vision(self) -> VisualTokenizer:
        """The frozen visual tokenizer."""
        return self.module.vision

    def step(self, pairs: Pairs, number: int) -> float:
        """See `Learner.step`."""
        self.module.train()
        loss = self.module.training_step(self.packed(pairs, number), number)
        loss.backward()
        self.module.configure_gradient_clipping(self.optimizer, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.trainer.global_step += 1
        self.averaging.on_train_batch_end(self.trainer, self.module, None, None, 0)
        return self.module.train_means.compute()["drawing", "flow_loss"]

    def packed(self, pairs: Pairs, number: int) -> PackedBatch:
        """The pairs in one row, some without their captions."""
        t, none = self.tokenizer, torch.zeros(0, dtype=torch.int64)
        dropped = torch.rand(len(pairs), generator=self.dropout) < DROPOUT
        documents = []
        for ids, latents, without in zip(pairs.ids, pairs.latents, dropped.tolist(), strict=True):
            opening = Text(torch.cat([t.ids(t.bos_id), none if without else ids, t.ids(t.boi_id)]), loss=not without)
            documents.append(Document((opening, Frame(latents), Text(t.ids(t.eoi_id, t.eos_id))), "drawing"))
        tokens = self.vision.num_tokens
        length = sum(document.length(tokens) for document in documents)
        return pack_rows(
            [PackedRow(tuple(documents), number, number)], length=length, tokens_per_frame=tokens,
            image_size=self.vision.image_size, pad_id=t.pad_id, sources=("drawing",),
        )  # fmt: skip

    def draw(self, captions: Sequence[Tensor]) -> Tensor:
        """See `Learner.draw`."""
        t, module = self.tokenizer, self.module.eval()
        decoder = Decoder(module.used_model, module.vision, module.flow, module.sampler, t)
        prefixes = [[Text(torch.cat([t.ids(t.bos_id), ids, t.ids(t.boi_id)]))] for ids in captions]
        return decoder.draw_latents(prefixes, list(range(len(prefixes)))).float()


class Peer:
    """`transfusion-pytorch`, trained as its `train_latent_with_text.py` does, with its own average of the weights.

    Products are in bfloat16 where the processor has them, as ours; its examples have float32, half as fast there.

    Args:
        rate: learning rate of Adam.
        shape: width, depth and heads of its transformer.
        vocabulary: of the captions' tokenizer.
        side: tokens on a side of a picture.
        channels: of a visual token.
    """

    def __init__(self, rate: float, shape: dict[str, int], vocabulary: int, side: int, channels: int) -> None:
        from loguru import logger
        from tqdm import tqdm
        from transfusion_pytorch import Transfusion, transfusion

        logger.disable("transfusion_pytorch")
        transfusion.tqdm = partial(tqdm, disable=True)
        torch.manual_seed(0)
        self.side = side
        self.model = Transfusion(
            num_text_tokens=vocabulary, dim_latent=channels, modality_default_shape=(side, side),
            add_pos_emb=True, modality_num_dim=2, prob_uncond=DROPOUT, transformer={"dim_head": 64, **shape},
            odeint_kwargs={"method": "euler"},
        )  # fmt: skip
        self.averaged = self.model.create_ema()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=rate, fused=True)

    def step(self, pairs: Pairs, number: int) -> float:
        """See `Learner.step`."""
        samples = [[ids, latents] for ids, latents in zip(pairs.ids, self._grid(pairs.latents), strict=True)]
        self.model.train()
        with _autocast():
            loss, parts = self.model(samples, return_breakdown=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.averaged.update()
        return float(parts.flow[0].detach())

    @torch.no_grad()
    def draw(self, captions: Sequence[Tensor]) -> Tensor:
        """See `Learner.draw`."""
        with _autocast():
            answers = self.averaged.sample_many(
                [[ids] for ids in captions],
                force_modality_at_start=(0, (self.side, self.side)),
                max_length=self.side**2 - 1,  # the picture ends it
                modality_steps=EVALUATIONS + 1,
                cfg_scale=GUIDANCE,
                return_unprocessed_modalities=True,
                return_without_prompt=True,
            )
        return torch.stack([answer[0].tensor for answer in answers]).flatten(1, 2).float()

    def _grid(self, latents: Tensor) -> Tensor:
        return latents.unflatten(1, (self.side, self.side))


def _autocast() -> torch.autocast:
    """Products in what this processor multiplies."""
    return torch.autocast("cpu", torch.bfloat16, enabled=product_dtype("cpu") == torch.bfloat16)

"""How well captions and pictures of validation fit each other, beyond the losses, in both directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F

from data_modules.dataset import BrokenFile, DocumentDataset, Draw
from lit_mm.sequence import Document, Frame, PackedRow, pack_rows
from lit_mm.vision.training.features import EfficientNetLite0, FeatureNetwork, LastFeatures

BATCH = 16  # pairs that go through the model at a time


class PictureEvaluation(Callback):
    """Compares what a model reads from and draws for pairs of picture and caption with what it should.

    For every validation source that shows its pairs both ways, over the same `pairs` evenly spread pairs:

    - `caption_perplexity` of captions behind their pictures, and `caption_perplexity_shuffled` behind the picture of
      the next pair. Equal values mean that the picture is not read.
    - `drawn_top5_<network>`: share of drawn pictures whose own true picture is among the five nearest of all the true
      ones, and `drawn_rank_<network>`: mean rank of the own one, from 0 (always the nearest) over 0.5 (chance) to 1.
      `reencoded_…` is the same for the true pictures through the visual tokenizer alone: no model drawn through it can
      be expected to do better. Nearness is the cosine of the network's features less their mean over the true pictures.
      The network should be none that a tokenizer was trained with.

    The values join the validation results, so this callback stands before `ResultsTable`. It runs with the last
    validation of a fit and with `validate`.

    Args:
        network: what judges pictures; EfficientNet-Lite0 by default.
        pairs: of each source.
        seed: of the noise that pictures are drawn from.
    """

    def __init__(self, network: FeatureNetwork | None = None, pairs: int = 64, seed: int = 0) -> None:
        self.network, self.pairs, self.seed = network, pairs, seed

    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate, and add the values to the module's results and to the loggers."""
        last = trainer.state.fn == "validate" or trainer.global_step >= trainer.max_steps > 0
        if trainer.sanity_checking or not last:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        found: dict[str, float] = {}
        for source, dataset in data.datasets["val"].items():
            read, drawn = both_ways(dataset, self.pairs)
            if read:
                values = self._captions(pl_module, read) | self._drawings(pl_module, drawn)
                found |= {f"val/{source}/{name}": value for name, value in values.items()}
        pl_module.validation_results.update(found)
        if found and trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(found, step=trainer.global_step)

    def _captions(self, module: Any, documents: Sequence[Document]) -> dict[str, float]:
        others = [with_picture_of(d, o) for d, o in zip(documents, [*documents[1:], documents[0]], strict=True)]
        return {
            "caption_perplexity": self._perplexity(module, documents),
            "caption_perplexity_shuffled": self._perplexity(module, others),
        }

    def _perplexity(self, module: Any, documents: Sequence[Document]) -> float:
        total, tokens = 0.0, 0
        for some in _batches(documents):
            batch = pack_rows(
                [PackedRow((document,), 0, 0) for document in some],
                length=max(document.length(module.tokens_per_frame) for document in some),
                tokens_per_frame=module.tokens_per_frame,
                image_size=module.image_size,
                pad_id=module.tokenizer.pad_id,
                sources=(some[0].source,),
            ).to(module.device)
            read = torch.ones(len(batch.frames), device=module.device)
            tokens += len(batch.predicted_positions)
            total += float(module.losses(batch, read).text.sum())
        return math.exp(min(total / tokens, 50.0))

    def _drawings(self, module: Any, documents: Sequence[Document]) -> dict[str, float]:
        self.network = self.network or EfficientNetLite0()
        judge = LastFeatures(self.network).to(module.device)
        decoder = module.decoder()
        features: dict[str, list[Tensor]] = {"true": [], "drawn": [], "reencoded": []}
        for start, some in zip(range(0, len(documents), BATCH), _batches(documents), strict=True):
            truth, prefixes = [], []
            for document in some:
                at, frame = picture_of(document)
                prefixes.append(document.segments[:at])
                truth.append(frame.image)
            true = torch.stack(truth).to(module.device)
            seeds = [self.seed + start + i for i in range(len(some))]
            pictures = {
                "true": true,
                "drawn": decoder.draw_frames(prefixes, seeds),
                "reencoded": decoder.vision.decode(decoder.vision.encode(true)),
            }
            for name, images in pictures.items():
                features[name].append(judge(images / 255))
        true_features = torch.cat(features.pop("true"))
        values = {}
        for name, parts in features.items():
            ranks = ranks_of_own(torch.cat(parts), true_features)
            values[f"{name}_top5_{self.network.name}"] = float((ranks < 5).float().mean())
            values[f"{name}_rank_{self.network.name}"] = float(ranks.float().mean() / max(1, len(ranks) - 1))
        return values


def both_ways(dataset: DocumentDataset, count: int) -> tuple[list[Document], list[Document]]:
    """Up to `count` evenly spread pairs as documents with the picture first, and the same with the caption first.

    Empty for a source that does not show pairs both ways.
    """
    variants = getattr(dataset, "variants", ())
    if not {"image_first", "caption_first"} <= set(variants):
        return [], []
    read, drawn = [], []
    for index in torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).long().tolist():
        try:
            read.append(dataset.document(Draw(index, variants.index("image_first"), 0)))
            drawn.append(dataset.document(Draw(index, variants.index("caption_first"), 0)))
        except BrokenFile:
            read = read[: len(drawn)]
    return read, drawn


def picture_of(document: Document) -> tuple[int, Frame]:
    """The first frame, and its place among the segments."""
    return next((i, segment) for i, segment in enumerate(document.segments) if isinstance(segment, Frame))


def with_picture_of(document: Document, other: Document) -> Document:
    """A pair with the picture of another pair."""
    at, _ = picture_of(document)
    segments = list(document.segments)
    segments[at] = picture_of(other)[1]
    return replace(document, segments=tuple(segments))


def ranks_of_own(features: Tensor, true: Tensor) -> Tensor:
    """How many true pictures are nearer to each picture than its own: (P,) int64 from (P, D) and (P, D).

    Nearness is the cosine after subtracting the mean of the true features.
    """
    mean = true.mean(0)
    near = F.normalize(features - mean, dim=1) @ F.normalize(true - mean, dim=1).T
    return (near > near.diagonal()[:, None]).sum(1)


def _batches(documents: Sequence[Document]) -> list[Sequence[Document]]:
    return [documents[i : i + BATCH] for i in range(0, len(documents), BATCH)]

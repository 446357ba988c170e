"""How well captions and pictures of validation fit each other, beyond the losses, in both directions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional as F

from callbacks.evaluation.final_evaluation import FinalEvaluation
from data_modules.dataset import BrokenFile, DocumentDataset, Draw
from lit_mm.packing import pack_rows
from lit_mm.sequence import IGNORE, Document, Frame, PackedRow
from lit_mm.vision.metrics.features import EfficientNetLite0, FeatureNetwork, LastFeatures

BATCH = 16  # pairs that go through the model at a time


class PictureEvaluation(FinalEvaluation):
    """Compares what a model reads from and draws for pairs of picture and caption with what it should.

    For every validation source that shows its pairs both ways, over the same `pairs` evenly spread pairs:

    - `caption_perplexity` of captions behind their pictures, and `caption_perplexity_shuffled` behind the picture of
      the next pair. Equal values mean that the picture is not read.
    - `drawn_top5_<network>`: share of drawn pictures whose own true picture is among the five nearest of all the true
      ones, and `drawn_rank_<network>`: mean rank of the own one, from 0 (always the nearest) over 0.5 (chance) to 1.
      `reencoded_…` is the same for the true pictures through the visual tokenizer alone: no model drawn through it can
      be expected to do better. Nearness is the cosine of the network's features less their mean over the true pictures.
      The network should be none that a tokenizer was trained with.

    See `FinalEvaluation` for when it runs.

    Args:
        network: what judges pictures; EfficientNet-Lite0 by default.
        pairs: of each source.
        seed: of the noise that pictures are drawn from.
    """

    def __init__(self, network: FeatureNetwork | None = None, pairs: int = 64, seed: int = 0) -> None:
        self.network, self.pairs, self.seed = network, pairs, seed

    def evaluate(self, trainer: Trainer, module: Any, source: str, dataset: DocumentDataset) -> dict[str, float]:
        """See `FinalEvaluation.evaluate`."""
        read, drawn = both_ways(dataset, self.pairs)
        return self._captions(module, read) | self._drawings(module, drawn) if read else {}

    def _captions(self, module: Any, documents: Sequence[Document]) -> dict[str, float]:
        others = [with_picture_of(d, o) for d, o in zip(documents, [*documents[1:], documents[0]], strict=True)]
        return {
            "caption_perplexity": self._perplexity(module, documents),
            "caption_perplexity_shuffled": self._perplexity(module, others),
        }

    def _perplexity(self, module: Any, documents: Sequence[Document]) -> float:
        losses = torch.cat(text_losses(module, documents))
        return math.exp(min(float(losses.mean()), 50.0))

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


def text_losses(module: Any, documents: Sequence[Document]) -> list[Tensor]:
    """For each document, the losses of its predicted text tokens; all of its frames are read."""
    found: list[Tensor] = []
    for some in _batches(documents):
        batch = pack_rows(
            [PackedRow((document,), 0, 0) for document in some],
            length=max(document.length(module.tokens_per_frame) for document in some),
            tokens_per_frame=module.tokens_per_frame,
            image_size=module.image_size,
            pad_id=module.tokenizer.pad_id,
            sources=(some[0].source,),
        )
        counts = (batch.targets != IGNORE).sum(1).tolist()
        batch = batch.to(module.device)
        found += module.losses(batch, torch.ones(len(batch.frames), device=module.device)).text.split(counts)
    return found


def both_ways(dataset: DocumentDataset, count: int) -> tuple[list[Document], list[Document]]:
    """Up to `count` evenly spread pairs as documents with the picture first, and the same with the caption first.

    Empty for a source that does not show pairs both ways.
    """
    variants = dataset.variants
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

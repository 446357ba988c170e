"""Whether a model knows which caption and which picture belong together, by the likelihood of captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.evaluation.final_evaluation import FinalEvaluation
from callbacks.evaluation.picture_evaluation import both_ways, text_losses, with_picture_of
from data_modules.dataset import DocumentDataset
from lit_mm.mistake import Mistake
from lit_mm.sequence import Document

CHOICES = 10  # pairs of a group: the right one and nine others


class PictureMatching(FinalEvaluation):
    """Matches pictures and captions, ten at a time, by the likelihood of a caption behind a picture.

    For every validation source that shows its pairs both ways, over evenly spread pairs of different captions in groups
    of ten, always the same ones; chance is 0.1:

    - `picture_matching`: how often the right one of ten pictures makes a caption likeliest.
    - `caption_matching`: how often the right one of ten captions is likeliest behind a picture. Short and frequent
      captions win it whatever the picture shows.
    - `caption_matching_pmi`: the same by the pointwise mutual information `log p(caption | picture) - log p(caption)`,
      where p(caption) is the mean of p(caption | picture) over the group's ten pictures.
    - `…_stderr`: standard errors of these.

    See `FinalEvaluation` for when it runs.

    Args:
        pairs: of each source; the model reads ten times as many. What does not fill a group is left out.
    """

    def __init__(self, pairs: int = 100) -> None:
        if pairs < CHOICES:
            raise Mistake(f"pairs: {pairs} do not fill a group; give {CHOICES} or more")
        self.pairs = pairs

    def evaluate(self, trainer: Trainer, module: Any, source: str, dataset: DocumentDataset) -> dict[str, float]:
        """See `FinalEvaluation.evaluate`."""
        found = groups(both_ways(dataset, self.pairs)[0])
        return matching(torch.stack([likelihoods(module, group) for group in found])) if found else {}


def groups(documents: Sequence[Document]) -> list[list[Document]]:
    """Groups of ten pairs, no two of one caption, each spread over all documents."""
    different = list({tuple(document.segments[-1].ids.tolist()): document for document in documents}.values())  # type: ignore[union-attr]
    count = len(different) // CHOICES
    return [different[first : count * CHOICES : count] for first in range(count)]


def likelihoods(module: Any, pairs: Sequence[Document]) -> Tensor:
    """(P, P) float64, log p(caption of pair j | picture of pair i) of pairs with the picture first."""
    crossed = [with_picture_of(caption, picture) for picture in pairs for caption in pairs]
    sums = [-losses.double().sum() for losses in text_losses(module, crossed)]
    return torch.stack(sums).cpu().view(len(pairs), len(pairs))


def matching(likelihood: Tensor) -> dict[str, float]:
    """Accuracies and standard errors from log p(caption | picture) (groups, pictures, captions)."""
    count = likelihood.shape[1]
    own = likelihood.logsumexp(1, keepdim=True) - math.log(count)
    answers = {
        "picture_matching": likelihood.argmax(1),
        "caption_matching": likelihood.argmax(2),
        "caption_matching_pmi": (likelihood - own).argmax(2),
    }
    values = {}
    for name, answer in answers.items():
        accuracy = float((answer == torch.arange(count)).double().mean())
        values[name] = accuracy
        values[f"{name}_stderr"] = math.sqrt(accuracy * (1 - accuracy) / answer.numel())
    return values

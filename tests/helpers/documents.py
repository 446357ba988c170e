"""Sources of made-up documents whose content says which draw they came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from data_modules.dataset import DocumentDataset, Draw
from lit_mm.sequence import Document, Frame, Text

TOKENS_PER_FRAME, IMAGE_SIZE = 16, 4


class FakeDataset(DocumentDataset):
    """Text of the wanted length; with `frames`, each document begins with one picture.

    Args:
        source: its name.
        lengths: (documents,) or (variants, documents) positions.
        splittable: whether the sampler may cut its documents.
        shares: of the variants.
        frames: whether a document begins with a picture.
    """

    def __init__(
        self,
        source: str,
        lengths: np.ndarray | Sequence[int],
        splittable: bool = False,
        shares: tuple[float, ...] = (1.0,),
        frames: bool = False,
    ) -> None:
        self.source, self.splittable, self.shares, self.frames = source, splittable, shares, frames
        self.lengths = np.atleast_2d(np.asarray(lengths, dtype=np.int32))

    def document(self, draw: Draw) -> Document:
        length = int(self.lengths[draw.variant, draw.index])
        if not self.frames:
            return Document((Text(1000 * draw.index + torch.arange(length)),), self.source)
        generator = torch.Generator().manual_seed(draw.seed)
        image = torch.randint(0, 256, (3, IMAGE_SIZE, IMAGE_SIZE), generator=generator, dtype=torch.uint8)
        ids = 1000 * draw.index + torch.arange(length - TOKENS_PER_FRAME)
        return Document((Frame(image, clean=draw.variant == 1), Text(ids)), self.source)


def sources(names: Sequence[str] = ("text", "pairs", "video")) -> dict[str, FakeDataset]:
    """Long text, short pairs in two variants, and video that fills a third of a row of 512 on average, by name."""
    rng = np.random.default_rng(0)
    made = {
        "text": FakeDataset("text", np.exp(rng.normal(6.5, 1.3, 400)).clip(4, 20_000), splittable=True),
        "pairs": FakeDataset("pairs", rng.integers(22, 40, (2, 1000)), shares=(0.25, 0.75), frames=True),
        "video": FakeDataset("video", 2 + 18 * rng.integers(4, 29, 300), frames=True),
        "actions": FakeDataset("actions", rng.integers(120, 260, 500), frames=True),
    }
    return {name: made[name] for name in names}


def later(state: dict[str, Any], row: int) -> dict[str, Any]:
    """A plan's state as it would be at a later row, which nobody has the time to plan up to.

    Every source has had as many draws a row as so far and its share of tokens, and waits for as many documents.
    """
    factor = row / state["rows"]
    added = (factor - 1) * sum(source["tokens"] for source in state["sources"].values())
    sources = {}
    for name, source in state["sources"].items():
        ahead = round(source["next"] * factor) - source["next"]
        waiting = [number + ahead for number in source["waiting"]]
        counts = {"next": source["next"] + ahead, "waiting": waiting}
        counts["tokens"] = source["tokens"] + round(added * state["weights"][name])
        sources[name] = {**source, **counts}
    return {**state, "rows": row, "sources": sources}

"""Several sources mixed by weight into the rows of one loader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_modules.base import DocumentDataModule, Split
from data_modules.dataset import DocumentDataset, DocumentFormat
from lit_mm.mistake import Mistake


class MixtureDataModule(DocumentDataModule):
    """A weighted mixture of data modules (paper §4, design of the sampler in `data_modules.mixing.sampler`).

    Args:
        sources: data modules by name; metrics are logged under these names.
        weights: share of the tokens that each source gets, by name; they need not sum to 1. A source of weight 0 is
            validated on but never trained on.
    """

    def __init__(self, sources: dict[str, DocumentDataModule], weights: dict[str, float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sources, self.weights = sources, weights
        for name, module in sources.items():
            module.key = f"data.sources.{name}"
        names = ", ".join(sources)
        for name, weight in weights.items():
            if name not in sources:
                raise Mistake(f"data.weights names an unknown source '{name}'; data.sources has: {names}")
            if not 0 <= weight < float("inf"):
                raise Mistake(f"data.weights.{name} is {weight}; a weight is 0 or a positive number")
        for name in sources:
            if name not in weights:
                raise Mistake(f"data.weights has no weight for source '{name}'; add one (0 to leave it out)")
        if not any(weights.values()):
            raise Mistake("data.weights are all 0; at least one source needs a positive weight")

    def dataset(self, split: Split, source: str, format: DocumentFormat) -> DocumentDataset | None:
        """Documents of one of the sources."""
        return self.sources[source].dataset(split, source, format)

    def modules(self) -> Mapping[str, DocumentDataModule]:
        """The data modules behind each source."""
        return self.sources

    def source_weights(self) -> Mapping[str, float]:
        """Share of tokens of each source, as given."""
        return self.weights

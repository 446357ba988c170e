"""Several sources mixed by weight into the rows of one loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_modules.base import DocumentDataModule, Split
from data_modules.dataset import DocumentDataset, DocumentFormat
from data_modules.mixing.stages import Stage, check_stages, check_weights
from lit_mm.mistake import Mistake


class MixtureDataModule(DocumentDataModule):
    """A weighted mixture of data modules (paper §4, design of the sampler in `data_modules.mixing.sampler`).

    Args:
        sources: data modules by name; metrics are logged under these names.
        weights: share of the tokens that each source gets, by name; they need not sum to 1. A source of weight 0 is
            validated on but never trained on.
        stages: other mixtures that come before that of `weights`, one after the other.

    Raises:
        Mistake: a weight is negative, names no source, is missing in `weights`, or all of a mixture are 0; or a stage
            ends before it begins.
    """

    def __init__(
        self,
        sources: dict[str, DocumentDataModule],
        weights: dict[str, float],
        stages: list[Stage] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sources, self.weights, self.stages = sources, weights, stages or []
        for name, module in sources.items():
            module.join(self, f"data.sources.{name}")
        check_weights(weights, list(sources), "data.weights")
        check_stages(self.stages, list(sources))
        for name in sources:
            if name not in weights:
                raise Mistake(f"data.weights has no weight for source '{name}'; add one (0 to leave it out)")

    def dataset(self, split: Split, source: str, format: DocumentFormat) -> DocumentDataset | None:
        """Documents of one of the sources."""
        return self.sources[source].dataset(split, source, format)

    def modules(self) -> Mapping[str, DocumentDataModule]:
        """The data modules behind each source."""
        return self.sources

    def source_weights(self) -> Mapping[str, float]:
        """Share of tokens of each source, as given."""
        return self.weights

    def source_stages(self) -> Sequence[Stage]:
        """Other shares that come before those."""
        return self.stages

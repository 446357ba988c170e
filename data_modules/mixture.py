"""Several sources mixed by weight into the rows of one loader."""

from __future__ import annotations

from typing import Any

from data_modules.base import DocumentDataModule
from data_modules.mixing.mixture import Mixture


class MixtureDataModule(DocumentDataModule):
    """A weighted mixture of sources (paper §4, design of the sampler in `data_modules.mixing.sampler`)."""

    def mix(self, **mixed: Any) -> Mixture:
        """The sources as they are given; see `data_modules.mixing.mixture.Mixture`."""
        mixture = Mixture(**mixed)
        for name, source in mixture.sources.items():
            source.key = f"data.sources.{name}"
        return mixture

"""Fréchet distance of drawn and true pictures, source by source, in the features of a named network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_mm.vision.metrics.features import FeatureNetwork, LastFeatures

if TYPE_CHECKING:
    from torchmetrics.image.fid import FrechetInceptionDistance


class FrechetDistances:
    """`|μ1 - μ2|² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½)` of the network's last features, in float64 (arXiv 1706.08500, eq. 6).

    This is FID only in Inception's features on 50,000 pictures; here the network's name is part of the metric's. With
    few pictures the distance is biased upwards, more so with fewer pictures than features: compare runs on the
    same pictures, never with published numbers.

    Args:
        network: whose features.
    """

    def __init__(self, network: FeatureNetwork) -> None:
        self.features = LastFeatures(network)
        self._metrics: dict[str, FrechetInceptionDistance] = {}

    def add(self, drawn: Tensor, images: Tensor, source_ids: Tensor, sources: Sequence[str]) -> None:
        """Count pictures (F, 3, height, width) in [0, 1] under the sources that `source_ids` (F,) name."""
        for index in source_ids.unique().tolist():
            here = source_ids == index
            metric = self._metric(sources[index], images.device)
            metric.update(images[here], real=True)
            metric.update(drawn[here], real=False)

    def compute(self, sources: Iterable[str], device: torch.device) -> dict[str, float]:
        """Distance of each source over all ranks, then start again; a source of a single picture has none.

        Args:
            sources: those seen on any rank, in the same order on every rank.
            device: of this rank.
        """
        distances = {}
        for source in sources:
            metric = self._metric(source, device)
            metric.sync()  # does nothing on a single rank
            if metric.real_features_num_samples > 1:
                distances[source] = max(0.0, float(metric.compute()))
            metric.reset()
        return distances

    def _metric(self, source: str, device: torch.device) -> FrechetInceptionDistance:
        from torchmetrics.image.fid import FrechetInceptionDistance

        if source not in self._metrics:
            metric = FrechetInceptionDistance(self.features, normalize=True, sync_on_compute=False)
            metric.orig_dtype = torch.float64  # of the result, even on a rank that saw no picture of the source
            self._metrics[source] = metric.to(device)
        return self._metrics[source]

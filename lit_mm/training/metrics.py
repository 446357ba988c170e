"""Sums per source, kept on the device and read only when they are logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

_TENTHS = tuple(f"{i / 10:.1f}_{(i + 1) / 10:.1f}" for i in range(10))
Sums = dict[tuple[str, str], tuple[float, float]]  # sum and count by source and name


class SourceMeans:
    """Running means of named values, one per source.

    Adding is a few small kernels and never waits for the device; `compute` waits, and is called on steps that log.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # (2, sources): sums and counts, float64
        self._sources: tuple[str, ...] = ()

    def add(self, name: str, values: Tensor, source_ids: Tensor, sources: Sequence[str]) -> None:
        """Count `values` (n,) under the sources that `source_ids` (n,) name."""
        self._sources = tuple(sources)
        if name not in self._sums:
            self._sums[name] = torch.zeros(2, len(sources), dtype=torch.float64, device=values.device)
        both = torch.stack([values.detach().double(), torch.ones_like(values, dtype=torch.float64)])
        self._sums[name].index_add_(1, source_ids, both)

    def compute(self) -> dict[tuple[str, str], float]:
        """Mean over all ranks by (source, name), for the sources that were seen; then start again from nothing."""
        return {key: total / count for key, (total, count) in self.sums().items()}

    def sums(self) -> Sums:
        """Sum and count over all ranks by (source, name), for the sources that were seen; then start from nothing.

        Every rank has to call it at the same step, with the same names added.
        """
        names = sorted(self._sums)
        if not names:
            return {}
        table = torch.stack([self._sums[name] for name in names])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(table)
        self._sums = {}
        rows = table.cpu().tolist()
        return {
            (source, name): (sums[s], counts[s])
            for name, (sums, counts) in zip(names, rows, strict=True)
            for s, source in enumerate(self._sources)
            if counts[s]
        }


class LossMeans(SourceMeans):
    """Means of losses by source, and beside them those of the flow by timestep.

    Attributes:
        by_timestep: means for timesteps from 0 (noise) to 1, in tenths.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_timestep = SourceMeans()

    def add_flow(self, losses: Tensor, timesteps: Tensor) -> None:
        """Count losses (F,) of the flow at their timesteps (F,)."""
        bins = (timesteps * len(_TENTHS)).long().clamp(0, len(_TENTHS) - 1)
        self.by_timestep.add("flow_loss", losses, bins, _TENTHS)

    def of_timesteps(self) -> dict[str, float]:
        """Means over all ranks, `flow_loss_at/0.3_0.4` and so on; then start again from nothing."""
        return {f"{name}_at/{tenth}": mean for (tenth, name), mean in self.by_timestep.compute().items()}


def means_of_all(sums: Sums, weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """Mean of each name over the values of all sources together.

    Args:
        sums: sum and count of the values by source and name.
        weights: how much one value of a source counts; 1 by default. A source that is not named, or of weight 0, is
            left out.

    Returns:
        By name; a name that no source of positive weight has is left out.
    """
    totals: dict[str, list[float]] = {}
    for (source, name), (total, count) in sums.items():
        weight = 1.0 if weights is None else weights.get(source, 0.0)
        of_name = totals.setdefault(name, [0.0, 0.0])
        of_name[0] += weight * total
        of_name[1] += weight * count
    return {name: total / count for name, (total, count) in totals.items() if count}

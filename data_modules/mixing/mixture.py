"""Which sources a run draws from, and how much of each."""

from __future__ import annotations

from data_modules.mixing.stages import Stage, check_stages, check_weights
from data_modules.source import Source
from lit_mm.mistake import Mistake


class Mixture:
    """Sources with their shares of the tokens.

    Args:
        sources: by name; metrics are logged under these names.
        weights: share of the tokens that each source gets, by name; they need not sum to 1. A source of weight 0 is
            validated on but never trained on.
        stages: other mixtures that come before that of `weights`, one after the other.

    Raises:
        Mistake: a weight is negative, names no source, is missing in `weights`, or all of a mixture are 0; or a stage
            ends before it begins.
    """

    def __init__(
        self, sources: dict[str, Source], weights: dict[str, float], stages: list[Stage] | None = None
    ) -> None:
        self.sources, self.weights, self.stages = sources, weights, stages or []
        check_weights(weights, list(sources), "data.weights")
        check_stages(self.stages, list(sources))
        for name in sources:
            if name not in weights:
                raise Mistake(f"data.weights has no weight for source '{name}'; add one (0 to leave it out)")

    @classmethod
    def of_one(cls, source: Source) -> Mixture:
        """A source alone, which has the name of its file: `text`, `image_text` and so on."""
        name = type(source).__module__.rpartition(".")[2]
        return cls({name: source}, {name: 1.0})

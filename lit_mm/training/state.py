"""What callbacks switch on in a module, and what a step leaves there for them to look at."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lit_mm.training.spikes import SpikeDetector


@dataclass
class TrainingState:
    """`LitMultimodal.state`: the only thing in the module that callbacks write to, beside `validation_results`.

    Attributes:
        averages_weights: build a second model, with averaged weights; set by `WeightAveraging` before any is built.
        spike_detector: is asked before every optimizer step whether to skip it; set by `SpikeGuard`.
        gradient_norm: () of the last optimizer step, before clipping.
        latents: (F, N, C) of the last batch.
        expert_load: (layers, kinds, experts) how often tokens of a kind chose each expert in the last optimizer step,
            on all ranks.
        validation_expert_tokens: (layers, kinds, experts) the same in the last validation, on this rank.
    """

    averages_weights: bool = False
    spike_detector: SpikeDetector | None = None
    gradient_norm: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    latents: Tensor | None = None
    expert_load: Tensor | None = None
    validation_expert_tokens: Tensor | None = None

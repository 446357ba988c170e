"""The one rule of precision: weights are float32, and a layer computes in the dtype of what it is given.

The model's input enters it in the compute dtype (`MultimodalTransformer.compute_dtype`) and every layer casts its
weights to that, so one process, copies, shards (which gather weights in the same dtype), callbacks and exports compute
the same. Autocast is off within the model. Whatever has to be exact is float32 where it is written down: timesteps,
rotary angles, the router, statistics within norms, the softmax and the sums of losses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor

from lit_mm.mistake import Mistake

COMPUTE_DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_SHORT = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}  # Lightning's names of the same


def compute_dtype(precision: str | int) -> torch.dtype:
    """What a model computes in under the trainer's precision.

    Raises:
        Mistake: weights would not be float32, or there is no such precision.
    """
    precision = _SHORT.get(str(precision), str(precision))
    if precision not in COMPUTE_DTYPES:
        raise Mistake(
            f"trainer.precision is '{precision}', but weights, losses and averages are float32 here; use one of "
            f"{', '.join(COMPUTE_DTYPES)}"
        )
    return COMPUTE_DTYPES[precision]


@cache
def product_dtype(device: str) -> torch.dtype:
    """Bfloat16 where a type of device multiplies matrices of it, float32 elsewhere.

    A processor that cannot (no AVX-512 on x86, no BF16 on Arm) takes some fifty times as long as in float32.
    """
    able = device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if able else torch.float32


def usable(precision: str | int, device: str) -> str | int:
    """The trainer's precision for a type of device: float32 in place of a bfloat16 that it cannot multiply."""
    slow = str(precision) in ("bf16", "bf16-mixed") and product_dtype(device) == torch.float32
    return "32-true" if slow else precision


def without_autocast(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that computes in the dtypes it names, whatever autocast says; its first argument is a tensor."""

    @wraps(method)
    def exact(self: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(tensor.device.type, enabled=False):
            return method(self, tensor, *args, **kwargs)

    return exact

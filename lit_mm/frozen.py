"""Parts that are used but not trained: visual tokenizers, feature networks, teachers, averaged copies."""

from __future__ import annotations

from functools import partial
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def freeze(module: M) -> M:
    """Take gradients from all parameters of a module, and keep it in evaluation mode whatever it is a part of.

    Who holds a module that is not to be trained calls this, whoever wrote the module: `train()` of the holder, which
    Lightning calls, then passes it by.

    Args:
        module: changed in place. Its parameters may still be written to, as those of a moving average are.

    Returns:
        The same module.
    """
    module.requires_grad_(False)
    module.train = partial(_stay_in_evaluation, module)  # type: ignore[method-assign]
    return module.train(False)


def _stay_in_evaluation(module: M, mode: bool = True) -> M:
    return type(module).train(module, False)

"""A linear probe: how well a linear classifier tells labels from features that were not made for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_mm.mistake import Mistake

# Of the squared weights beside the mean loss; each fit starts from the one before.
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4)
# Neighbours in a sorted folder may be near-twins (one drawing in five skin tones). Held out one by one they would make
# no penalty at all look best, so whole blocks are.
BLOCK, HELD_OUT_EVERY = 32, 5
MAX_ITERATIONS = 100


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found.

    Attributes:
        accuracy: share of test items whose label it says.
        standard_error: of the accuracy, if the test items are independent.
        balanced_accuracy: the same for each label of the test items, averaged over labels.
        majority: accuracy of always saying the training items' most frequent label.
        chance: balanced accuracy of saying any one label whatever is seen: one over the test items' labels.
        penalty: weight of the squared weights, as chosen.
    """

    accuracy: float
    standard_error: float
    balanced_accuracy: float
    majority: float
    chance: float
    penalty: float


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> ProbeResult:
    """Multinomial logistic regression on standardised features, in float64 and without any randomness.

    The penalty is the one that gives blocks of training items held out for it the least cross-entropy; then all are
    trained on.

    Args:
        train: (n, C) features.
        train_labels: (n,) int64 classes, counted from 0.
        test: (m, C) features.
        test_labels: (m,) int64.

    Raises:
        Mistake: there are no items to test or too few to train on.
    """
    if len(test) == 0 or len(train) <= BLOCK:
        raise Mistake(
            f"a probe needs more than {BLOCK} items to train on and any to test; got {len(train)}, {len(test)}"
        )
    classes = int(torch.cat([train_labels, test_labels]).max()) + 1
    held_out = torch.arange(len(train)) // BLOCK % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    if not held_out.any():
        held_out = torch.arange(len(train)) >= len(train) - BLOCK // 2
    inner = _logits(train[~held_out], train_labels[~held_out], train[held_out], classes, PENALTIES)
    losses = [float(F.cross_entropy(logits, train_labels[held_out])) for logits in inner]
    best = losses.index(min(losses))
    said = _logits(train, train_labels, test, classes, PENALTIES[: best + 1])[-1].argmax(1)
    right = (said == test_labels).double()
    counts = torch.bincount(test_labels, minlength=classes)
    by_label = torch.bincount(test_labels, weights=right, minlength=classes)[counts > 0] / counts[counts > 0]
    majority = torch.bincount(train_labels).argmax()
    return ProbeResult(
        accuracy=float(right.mean()),
        standard_error=float(right.var(unbiased=False) / len(right)) ** 0.5,
        balanced_accuracy=float(by_label.mean()),
        majority=float((test_labels == majority).double().mean()),
        chance=1 / int((counts > 0).sum()),
        penalty=PENALTIES[best],
    )


def _logits(train: Tensor, labels: Tensor, test: Tensor, classes: int, penalties: Sequence[float]) -> list[Tensor]:
    """(m, classes) logits of `test` after training on `train` with each of the penalties."""
    train, test = train.double(), test.double()
    mean, deviation = train.mean(0), train.std(0).clamp_min(1e-8)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    weight, bias = train.new_zeros(train.shape[1], classes), train.new_zeros(classes)
    logits = []
    for penalty in penalties:
        weight, bias = fit_logistic(train, labels, weight, bias, penalty)
        logits.append(test @ weight + bias)
    return logits


def fit_logistic(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, penalty: float
) -> tuple[Tensor, Tensor]:
    """Weights (C, classes) and biases (classes,) of least mean cross-entropy + penalty / 2 * squared weights.

    Args:
        features: (n, C).
        labels: (n,) int64.
        weight: (C, classes) to start from.
        bias: (classes,) to start from.
        penalty: zero or more.
    """
    # Validation runs in inference mode, whose tensors take no part in gradients; their copies do.
    with torch.inference_mode(False), torch.enable_grad():
        features, labels = features.clone(), labels.clone()
        weight, bias = (start.clone().requires_grad_() for start in (weight, bias))
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=MAX_ITERATIONS,
            tolerance_grad=1e-5,
            tolerance_change=1e-7,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(features @ weight + bias, labels) + penalty / 2 * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]
        return weight.detach(), bias.detach()

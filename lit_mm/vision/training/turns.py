"""The steps of an autoencoder and of its discriminator, which take turns, and those of a rank that has no picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_mm.vision.training.adversary import Adversary, zero_loss
from lit_mm.vision.training.losses import adaptive_weight


def take_turns(
    module: Any,
    adversary: Adversary,
    loss: Tensor,
    drawn: Tensor,
    images: Tensor,
    generator: torch.Generator,
) -> None:
    """One step of the decoder, then one of the discriminator on the same pictures.

    Args:
        module: the `LitAutoencoder` whose steps they are.
        adversary: its adversarial term.
        loss: the decoder's, without that term.
        drawn: (F, 3, height, width), about [0, 1], with gradients.
        images: (F, 3, height, width) in [0, 1].
        generator: of the augmentation of what the discriminator sees.
    """
    step, term = module.global_step, adversary.term
    if step >= term.adversarial_start:
        adversarial = adversary.decoder_loss(drawn, generator)
        balance = adaptive_weight(loss, adversarial, module.last_layer)
        module.log_dict({"train/adversarial_loss": adversarial.detach(), "train/adaptive_weight": balance})
        loss = loss + term.weight * balance * adversarial
    _step_decoder(module, loss)
    if step >= term.discriminator_start:
        loss = adversary.discriminator_loss(drawn, images, generator)
        _step_discriminator(module, loss)
        module.log("train/discriminator_loss", loss.detach())


def without_pictures(module: Any) -> Tensor:
    """A loss of zero through all that a `LitAutoencoder` trains.

    It takes the same turns as the ranks that have pictures. Gradients are averaged over all ranks, so this one counts
    as one whose pictures are drawn perfectly.
    """
    loss = zero_loss(module.trained_parameters())
    if (adversary := module.adversary) is not None:
        step = module.global_step
        _step_decoder(module, loss)
        if step >= adversary.term.discriminator_start:
            _step_discriminator(module, adversary.loss_without_pictures())
    return loss


def _step_decoder(module: Any, loss: Tensor) -> None:
    optimizer: Any = module.optimizers()[0]
    schedules: Any = module.lr_schedulers()
    optimizer.zero_grad()
    module.manual_backward(loss)
    module.clip()
    optimizer.step()
    schedules[0].step()
    module.update_average()


def _step_discriminator(module: Any, loss: Tensor) -> None:
    # Stepped as torch's own, so that the trainer's step counts the decoder's steps alone.
    optimizer: Any = module.optimizers(use_pl_optimizer=False)[1]
    schedules: Any = module.lr_schedulers()
    optimizer.zero_grad()
    module.manual_backward(loss)
    optimizer.step()
    schedules[1].step()

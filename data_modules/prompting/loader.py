"""From what `data.prompts` names to batches of prompts."""

from __future__ import annotations

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from data_modules.prompting.prompt_items import STDIN, read_stdin
from data_modules.prompting.prompt_stream import PromptStream
from data_modules.prompting.prompts import Prompts
from data_modules.prompting.steering import Steering
from data_modules.prompting.template import Template
from lit_mm.mistake import Mistake

PROMPTS = 16  # answered together


def prompt_loader(
    source: str | None, image_size: int, steering: str | None, template: Template, trainer: Trainer | None
) -> DataLoader:
    """Prompts, a few at a time; those of standard input one by one, each as soon as its line is there.

    Args:
        source: see `data_modules.prompting.prompts.Prompts`.
        image_size: side to which pictures are brought.
        steering: file that says what keys mean.
        template: how turns of conversations are written down.
        trainer: whose processes share the prompts.

    Raises:
        Mistake: there is no source, or it cannot be read.
    """
    if source is None:
        raise Mistake(
            "data.prompts is missing; say what to ask: --data.prompts FILE (such as configs/prompts/lab.yaml), a "
            "folder of pictures to describe, or echo 'draw: a red fox' | lit-mm predict … --data.prompts -"
        )
    keys = None if steering is None else Steering.load(steering)
    text = None
    if source == STDIN:
        if trainer is None or trainer.world_size == 1:
            return DataLoader(PromptStream(read_stdin(), image_size, keys, template), batch_size=1, collate_fn=list)
        # One process alone can read it, and each answers its share of the whole.
        text = trainer.strategy.broadcast("".join(read_stdin()) if trainer.is_global_zero else None)
    return DataLoader(Prompts(source, image_size, keys, text, template=template), batch_size=PROMPTS, collate_fn=list)

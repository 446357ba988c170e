"""Drawing and describing as one looks on: step by step, and token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from lit_mm.generation.answers import as_request
from lit_mm.generation.loop import Generation
from lit_mm.loaded_model import LoadedModel
from lit_mm.play.game import as_array
from lit_mm.play.outbox import Outbox
from lit_mm.play.protocol import Message
from lit_mm.play.settings import Settings
from lit_mm.play.views import png
from lit_mm.prompt import Prompt

MOST_TOKENS = 128  # of a description


def draw(
    model: LoadedModel, caption: str, settings: Settings, outbox: Outbox, keep: Callable[[Tensor], None]
) -> Iterator[None]:
    """Draw what a caption says, as `LoadedModel.draw` does.

    Args:
        model: that draws.
        caption: what to draw.
        settings: how.
        outbox: where each step is shown.
        keep: is given the picture (3, image_size, image_size) uint8 in the end.

    Raises:
        Mistake: the caption is too long, or the model draws nothing.
    """
    options = settings.prompt
    seed = options.pop("seed")
    prompt = Prompt("draw", "image", (caption,), seed=seed, sampler=options)
    generation = Generation(model.decoder, [as_request(model.decoder, prompt, model.context)])
    for step, latents in enumerate(generation.steps(), 1):
        assert latents is not None
        picture = model.decoder.decode(latents)[0].cpu()
        done = step == settings.steps
        if done:
            keep(picture)
        shown = {"step": step, "steps": settings.steps, "done": done}
        outbox.put(Message("drawn", shown, (png(as_array(picture)),)))
        yield


def describe(model: LoadedModel, picture: Tensor, question: str, outbox: Outbox) -> Iterator[None]:
    """Write a caption of a picture, or answer a question about it, as `LoadedModel.describe` does.

    Args:
        model: that looks.
        picture: (3, image_size, image_size) uint8.
        question: empty for a caption.
        outbox: where the text so far is shown after every token.

    Raises:
        Mistake: the question is too long.
    """
    parts = (picture, question) if question.strip() else (picture,)
    prompt = Prompt("describe", "text", parts, max_tokens=MOST_TOKENS)
    generation = Generation(model.decoder, [as_request(model.decoder, prompt, model.context)])
    (row,) = generation.rows
    tokenizer = model.decoder.tokenizer
    for _ in generation.steps():
        written = row.answer.ids or row.text
        text = tokenizer.decode([i for i in written if i not in (tokenizer.boi_id, tokenizer.eoi_id)])
        outbox.put(Message("said", {"text": text, "done": row.ended}))
        yield

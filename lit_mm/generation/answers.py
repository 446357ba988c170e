"""Answering prompts: each in the document format that its kind has in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.request import Continuation, Request
from lit_mm.generation.roll_out import RollOut, roll_out, shown
from lit_mm.generation.sampling import TextSampling
from lit_mm.mistake import Mistake
from lit_mm.prompt import Answer, FailedPrompt, Prompt, Wanted
from lit_mm.sequence import Document, Segment, Text

Answered = Answer | FailedPrompt


def answer(decoder: Decoder, prompt: Prompt, context: int | None = None) -> Answer:
    """Continue one prompt.

    Args:
        decoder: the model.
        prompt: what is asked.
        context: positions of a row in training; unlimited by default.

    Raises:
        Mistake: the prompt cannot be answered; see `answer_all`.
    """
    answered = answer_all(decoder, [prompt], context)[0]
    if isinstance(answered, FailedPrompt):
        raise Mistake(answered.error)
    return answered


def answer_all(
    decoder: Decoder, prompts: Sequence[Prompt | FailedPrompt], context: int | None = None
) -> list[Answered]:
    """Continue prompts, decoded together.

    One that is longer than `context`, that asks a model for pictures that was trained on text alone, or whose settings
    are out of range, fails; the others are answered.
    """
    answered: list[Answered | None] = []
    requests: dict[int, Request] = {}
    rolled: dict[int, RollOut] = {}
    for place, prompt in enumerate(prompts):
        if isinstance(prompt, FailedPrompt):
            answered.append(prompt)
            continue
        try:
            if prompt.wanted == "frames":
                rolled[place] = _roll_out(decoder, prompt, context)
            else:
                requests[place] = as_request(decoder, prompt, context)
            answered.append(None)  # until it is there
        except Mistake as error:
            sentence = f"prompt '{prompt.name}': {error}"
            answered.append(FailedPrompt(prompt.name, sentence, prompt.group, prompt.settings))
    for place, continuation in zip(requests, decoder.generate(list(requests.values())), strict=True):
        answered[place] = _answer(decoder, _readable(prompts[place]), continuation)
    for place, latents in zip(rolled, roll_out(decoder, list(rolled.values())), strict=True):
        answered[place] = Answer(_readable(prompts[place]), list(decoder.decode(latents).cpu()), "frames")
    return [a for a in answered if a is not None]


def as_request(decoder: Decoder, prompt: Prompt, context: int | None) -> Request:
    """What a prompt of any kind but `frames` asks of the loop of decoding.

    Args:
        decoder: the model.
        prompt: what is asked.
        context: positions of a row in training; unlimited by default.

    Raises:
        Mistake: it cannot be answered; see `answer_all`.
    """
    check_pictures(decoder, prompt.wanted)
    t = decoder.tokenizer
    prefix: list[Segment] = []
    opening: list[int | str] = [t.bos_id]
    for part in prompt.parts:
        if isinstance(part, str):
            opening.append(part)
        else:
            more = shown(t, part[None], opening)
            prefix, opening = prefix + more[:-1], [t.eoi_id]
    prefix.append(Text(t.ids(*opening, *([t.boi_id] if prompt.wanted == "image" else []))))
    drawn = {"image": 1, "text": 0, "any": prompt.max_frames}[prompt.wanted]
    frames = decoder.vision.num_tokens + 1 if prompt.wanted == "image" else 1
    _check_length(decoder, prefix, frames, context)
    return Request(
        prefix,
        prompt.seed,
        max_tokens=0 if prompt.wanted == "image" else prompt.max_tokens,
        max_frames=drawn,
        sampling=_sampling(prompt),
        stop=prompt.stop,
        sampler=_sampler(decoder, prompt),
        context=context,
    )


def _roll_out(decoder: Decoder, prompt: Prompt, context: int | None) -> RollOut:
    check_pictures(decoder, prompt.wanted)
    frames = torch.stack(prompt.pictures)
    rolled = RollOut(frames, prompt.actions, prompt.seed, _sampler(decoder, prompt))
    for action in prompt.actions:
        prefix = shown(decoder.tokenizer, frames, [decoder.tokenizer.bos_id], [action, decoder.tokenizer.boi_id])
        _check_length(decoder, prefix, decoder.vision.num_tokens + 1, context)
    return rolled


def _readable(prompt: Prompt | FailedPrompt) -> Prompt:
    assert isinstance(prompt, Prompt)
    return prompt


def _answer(decoder: Decoder, prompt: Prompt, continuation: Continuation) -> Answer:
    t = decoder.tokenizer
    latents = continuation.latents
    pictures: Iterator[Tensor] = iter(decoder.decode(torch.stack(latents)).cpu() if latents else [])
    parts: list[str | Tensor] = []
    for segment in continuation.segments:
        if isinstance(segment, Text):
            text = t.decode([i for i in segment.ids.tolist() if i not in (t.boi_id, t.eoi_id)])
            parts += [text] if text else []
        else:
            parts.append(next(pictures))
    return Answer(prompt, parts, continuation.stopped)


def _sampling(prompt: Prompt) -> TextSampling:
    return TextSampling(**prompt.sampling)  # type: ignore[arg-type]


def _sampler(decoder: Decoder, prompt: Prompt) -> FlowSampler | None:
    """Equal settings give the same object: their frames are drawn together."""
    if not prompt.sampler:
        return None
    return FlowSampler.shared(**(decoder.sampler.settings | prompt.sampler))


def _check_length(decoder: Decoder, prefix: Sequence[Segment], answer: int, context: int | None) -> None:
    length = Document(tuple(prefix), "prompt").length(decoder.vision.num_tokens) + answer
    if context is not None and length > context:
        raise Mistake(
            f"it takes {length} positions with the shortest answer, but the model was trained on rows of {context} "
            "(data.loader.row_length); make it shorter"
        )


def check_pictures(decoder: Decoder, wanted: Wanted) -> None:
    """Refuse to draw with a model that never learned it: its velocity head is still zero, as it started.

    Raises:
        Mistake: it was trained on text alone.
    """
    if wanted in ("image", "frames") and not decoder.model.velocity_head.linear.weight.any():
        raise Mistake(
            "it asks for pictures, but the model was never trained to draw one; use a checkpoint of a run with pictures"
        )

"""What can be done with a trained model in plain Python: draw, describe, write, imagine, encode, decode and judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from PIL import Image
from torch import Tensor

from data_modules.prompting.steering import Steering, action_texts
from data_modules.reading.pictures import Picture, as_picture, is_picture
from lit_mm.generation.answers import answer_all
from lit_mm.generation.decoding import Decoder
from lit_mm.mistake import Mistake
from lit_mm.prompt import Answer, FailedPrompt, Prompt
from lit_mm.sequence import Document, Frame, Segment, Text

AT_ONCE = 16  # prompts that are answered together, as by predict
Seeds = int | Sequence[int]
Actions = str | Sequence[str]
Part = str | Picture
T = TypeVar("T")


class LoadedModel:
    """A trained model, made by `lit_mm.load`.

    A picture that is given may be a path, a PIL image, a uint8 tensor (3, height, width) or a uint8 array (height,
    width, 3). Its short side is resized to the model's `image_size` and its centre is cut out. Pictures that come out
    are square RGB PIL images of that size.

    One thing in gives one thing out, and a list gives a list, answered together. Everything sampled depends on `seed`
    alone: one number for all, or a list with one for each. What else is in the list changes no more than the last
    digits of sums; where these are rounded to 16 bits (`bf16-mixed`), that may lead to another token of a text.

    Args:
        source: where it was loaded from.
        decoder: the model and both tokenizers.
        context: positions of a row in training; nothing longer can be asked or answered.
        steering: file that says what keys in actions mean, if there is one.

    Attributes:
        decoder: for all that is not here: `decoder.model` is the transformer, a plain `nn.Module`.
    """

    def __init__(self, source: Path, decoder: Decoder, context: int, steering: str | None = None) -> None:
        self.source, self.decoder, self.context, self.steering = source, decoder, context, steering

    def __repr__(self) -> str:
        millions = sum(parameter.numel() for parameter in self.decoder.model.parameters()) / 1e6
        size = self.image_size
        return f"LoadedModel('{self.source}', {millions:.1f} M parameters, {size}x{size} pictures, on {self.device})"

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.decoder.device

    @property
    def image_size(self) -> int:
        """Side of its pictures, in pixels."""
        return self.decoder.vision.image_size

    @overload
    def draw(
        self, captions: str, *, seed: Seeds = 0, guidance: float | None = None, steps: int | None = None
    ) -> Image.Image: ...
    @overload
    def draw(
        self, captions: list[str], *, seed: Seeds = 0, guidance: float | None = None, steps: int | None = None
    ) -> list[Image.Image]: ...
    def draw(
        self, captions: str | list[str], *, seed: Seeds = 0, guidance: float | None = None, steps: int | None = None
    ) -> Image.Image | list[Image.Image]:
        """Draw what captions say.

        Args:
            captions: one, or a list.
            seed: see the class.
            guidance: how strongly the caption is followed; 1 is not at all guided, 3 is usual.
            steps: from noise to picture; fewer are quicker and coarser, 25 are usual.

        Raises:
            Mistake: a caption is too long, or the model was never trained on pictures.
        """
        sampler = _given(guidance_scale=guidance, steps=steps)
        asked = [Prompt("draw", "image", (caption,), sampler=sampler) for caption in _several(captions)]
        return _as_given(captions, [_image(answer.frames[0]) for answer in self.answer(asked, seed)])

    @overload
    def describe(self, pictures: Picture, question: str | None = None, **options: Any) -> str: ...
    @overload
    def describe(self, pictures: Sequence[Picture], question: str | None = None, **options: Any) -> list[str]: ...
    def describe(
        self,
        pictures: Picture | Sequence[Picture],
        question: str | None = None,
        *,
        seed: Seeds = 0,
        max_tokens: int = 64,
        stop: Sequence[str] = (),
        **sampling: float,
    ) -> str | list[str]:
        """Write about pictures.

        Args:
            pictures: one, or a list.
            question: what is asked about each; without it the model writes a caption.
            seed: see the class.
            max_tokens: most tokens of an answer.
            stop: texts that end an answer, which does not hold them.
            **sampling: `temperature` (0: the likeliest token each time), `top_k`, `top_p` and `min_p`, see
                `lit_mm.generation.sampling.TextSampling`.

        Raises:
            Mistake: something given is no picture.
        """
        asked = [
            Prompt("describe", "text", (picture, *([question] if question else [])))
            for picture in map(self._pixels, _several(pictures))
        ]
        return _as_given(pictures, self._write(asked, seed, max_tokens, stop, sampling))

    @overload
    def continue_text(self, texts: str, **options: Any) -> str: ...
    @overload
    def continue_text(self, texts: list[str], **options: Any) -> list[str]: ...
    def continue_text(
        self,
        texts: str | list[str],
        *,
        seed: Seeds = 0,
        max_tokens: int = 64,
        stop: Sequence[str] = (),
        **sampling: float,
    ) -> str | list[str]:
        """What comes behind texts, without the texts themselves; arguments are those of `describe`."""
        asked = [Prompt("text", "text", (text,)) for text in _several(texts)]
        return _as_given(texts, self._write(asked, seed, max_tokens, stop, sampling))

    def imagine(
        self,
        frames: Sequence[Picture] | Sequence[Sequence[Picture]],
        actions: Actions | Sequence[Actions],
        *,
        seed: Seeds = 0,
        guidance: float | None = None,
        steps: int | None = None,
        noise_scale: float | None = None,
    ) -> list[Image.Image] | list[list[Image.Image]]:
        """Draw what is seen next, one picture for each action, each from the pictures before it.

        Args:
            frames: pictures seen so far, oldest first; or a list of such lists, one for each entry of `actions`.
            actions: `W*4 LEFT "look up"*2`, keys being those of the model's steering file; or a list of texts as in
                training, one for each picture. For several lists of frames, a list of either.
            seed: see the class. The same for several ways to act gives all of them the same noise.
            guidance: see `draw`.
            steps: see `draw`.
            noise_scale: below 1, pictures are nearer to what is expected and less varied.

        Returns:
            A list of pictures; for several lists of frames, a list of such lists.

        Raises:
            Mistake: the actions cannot be read, or there are not as many as lists of frames.
        """
        batched = not is_picture(frames[0])
        of_all: Any = (frames, actions) if batched else ([frames], [actions])
        if isinstance(of_all[1], str) or len(of_all[0]) != len(of_all[1]):
            raise Mistake(f"there are {len(of_all[0])} lists of frames; give as many actions, in a list")
        sampler = _given(guidance_scale=guidance, steps=steps, noise_scale=noise_scale)
        keys = None if self.steering is None else Steering.load(self.steering)
        asked = [
            Prompt(
                "imagine",
                "frames",
                tuple(map(self._pixels, shown)),
                action_texts(done if isinstance(done, str) else list(done), keys),
                sampler=sampler,
            )
            for shown, done in zip(*of_all, strict=True)
        ]
        drawn = [[_image(frame) for frame in answer.frames] for answer in self.answer(asked, seed)]
        return drawn if batched else drawn[0]

    def answer(self, prompts: Sequence[Prompt], seed: Seeds | None = None) -> list[Answer]:
        """Answer prompts of any kind, also those that have texts and pictures in turns.

        Args:
            prompts: with pictures (3, image_size, image_size) uint8.
            seed: see the class; the prompts' own by default.

        Raises:
            Mistake: one of them cannot be answered.
        """
        if seed is not None:
            seeds = [seed] * len(prompts) if isinstance(seed, int) else list(seed)
            if len(seeds) != len(prompts):
                raise Mistake(f"seed has {len(seeds)} numbers for {len(prompts)} prompts; give one for each, or one")
            for prompt, number in zip(prompts, seeds, strict=True):
                prompt.seed = number
        answers: list[Answer] = []
        for start in range(0, len(prompts), AT_ONCE):
            for answer in answer_all(self.decoder, prompts[start : start + AT_ONCE], self.context):
                if isinstance(answer, FailedPrompt):
                    raise Mistake(answer.error.removeprefix(f"prompt '{answer.name}': "))
                answers.append(answer)
        return answers

    @torch.no_grad()
    def encode(self, pictures: Picture | Sequence[Picture]) -> Tensor:
        """Visual tokens of pictures, those that are drawn.

        Returns:
            (N, C) float32 on the model's device for one picture, (pictures, N, C) for several; about unit variance.
        """
        images = torch.stack([self._pixels(picture) for picture in _several(pictures)])
        tokens = torch.cat([self.decoder.vision.encode(part.to(self.device)) for part in images.split(AT_ONCE)])
        return tokens[0] if is_picture(pictures) else tokens

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Image.Image | list[Image.Image]:
        """The way back: a picture of (N, C), a list of them of (pictures, N, C)."""
        several = tokens if tokens.ndim == 3 else tokens[None]
        images = [_image(one) for part in several.split(AT_ONCE) for one in self.decoder.decode(part.to(self.device))]
        return images if tokens.ndim == 3 else images[0]

    def logits(self, texts: str | Sequence[str | tuple[Part, ...]]) -> Tensor | list[Tensor]:
        """Scores of the next token behind every position.

        Position 0 is `<bos>`, then come the tokens of the text: row t scores what follows the first t + 1 of them, and
        `decoder.tokenizer.encode(text)` gives their ids. Behind the tokens of pictures nothing is ever predicted.

        Args:
            texts: a text; or a list of texts, and of tuples of texts (`str`) and pictures (of any other type) in
                reading order. Every picture stands between `<boi>` and `<eoi>`.

        Returns:
            (T, vocabulary) float32 on the model's device, T positions; a list of these for a list.

        Raises:
            Mistake: a text is longer than the rows the model was trained on.
        """
        rows = [self._row((text,) if isinstance(text, str) else text) for text in _several(texts)]
        found = [
            one for start in range(0, len(rows), AT_ONCE) for one in self.decoder.score(rows[start : start + AT_ONCE])
        ]
        return _as_given(texts, [logits.float() for logits in found])

    def _row(self, parts: Sequence[Part]) -> list[Segment]:
        t, row = self.decoder.tokenizer, list[Segment]()
        opening: list[int | str] = [t.bos_id]
        for part in parts:
            if isinstance(part, str):
                opening.append(part)
            else:
                row += [Text(t.ids(*opening, t.boi_id)), Frame(self._pixels(part), clean=True)]
                opening = [t.eoi_id]
        row.append(Text(t.ids(*opening)))
        if (length := Document(tuple(row), "text").length(self.decoder.vision.num_tokens)) > self.context:
            raise Mistake(f"a text takes {length} positions, but the model was trained on rows of {self.context}")
        return row

    def _pixels(self, picture: Picture) -> Tensor:
        return as_picture(picture, self.image_size)

    def _write(
        self,
        asked: Sequence[Prompt],
        seed: Seeds,
        max_tokens: int,
        stop: Sequence[str],
        sampling: dict[str, float],
    ) -> list[str]:
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        prompts = [replace(one, max_tokens=max_tokens, stop=stops, sampling=sampling) for one in asked]
        return [answer.text for answer in self.answer(prompts, seed)]


def _several(given: Any) -> Sequence[Any]:
    return [given] if isinstance(given, str) or is_picture(given) else given


def _as_given(given: Any, results: list[T]) -> T | list[T]:
    return results[0] if isinstance(given, str) or is_picture(given) else results


def _given(**settings: float | None) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())

"""What can be done with a trained model in plain Python: draw, describe, write, imagine, encode, decode and judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import torch
from PIL import Image
from torch import Tensor

from data_modules.prompting.steering import Steering, action_texts
from data_modules.prompting.template import PLAIN, Template
from data_modules.reading.pictures import Picture, as_picture, is_picture
from lit_mm import loaded_inputs as inputs
from lit_mm.generation.answers import answer_all
from lit_mm.generation.decoding import Decoder
from lit_mm.mistake import Mistake
from lit_mm.prompt import Answer, FailedPrompt, Prompt
from lit_mm.sequence import Document, Frame, Segment, Text

AT_ONCE = 16  # prompts that are answered together, as by predict
Seeds = int | Sequence[int]
Actions = str | Sequence[str]
Part = str | Picture


class LoadedModel:
    """A trained model, made by `lit_mm.load`.

    A picture that is given may be a path, a PIL image, a uint8 tensor (3, height, width) or a uint8 array (height,
    width, 3), also grey or with transparency. Its short side is resized to the model's `image_size` and its centre is
    cut out. Pictures that come out are square RGB PIL images of that size.

    One thing in gives one thing out, and a list gives a list, answered together. Everything sampled depends on `seed`
    alone: one number for all, or a list with one for each. What else is in the list changes no more than the last
    digits of sums; where these are rounded to 16 bits (`bf16-mixed`), that may lead to another token of a text.

    Args:
        source: where it was loaded from.
        decoder: the model and both tokenizers.
        context: positions of a row in training; nothing longer can be asked or answered.
        steering: file that says what keys in actions mean, if there is one.
        template: how turns of conversations are written down.

    Attributes:
        decoder: for all that is not here: `decoder.model` is the transformer, a plain `nn.Module`.
    """

    def __init__(
        self, source: Path, decoder: Decoder, context: int, steering: str | None = None, template: Template = PLAIN
    ) -> None:
        self.source, self.decoder, self.context = source, decoder, context
        self.steering, self.template = steering, template

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
            Mistake: a caption is too long, an argument cannot be used, or the model was never trained on pictures.
        """
        sampler = inputs.sampler(guidance, steps)
        asked = [Prompt("draw", "image", (caption,), sampler=sampler) for caption in inputs.texts(captions, "captions")]
        return inputs.as_given(captions, [inputs.image(answer.frames[0]) for answer in self.answer(asked, seed)])

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
        asking = () if question is None else tuple(inputs.texts(question, "question"))
        asked = [Prompt("describe", "text", (picture, *asking)) for picture in inputs.pixels(pictures, self.image_size)]
        return inputs.as_given(pictures, self._write(asked, seed, max_tokens, stop, sampling))

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
        asked = [Prompt("text", "text", (text,)) for text in inputs.texts(texts, "texts")]
        return inputs.as_given(texts, self._write(asked, seed, max_tokens, stop, sampling))

    def imagine(
        self,
        frames: Picture | Sequence[Picture] | Sequence[Sequence[Picture]],
        actions: Actions | Sequence[Actions],
        *,
        seed: Seeds = 0,
        guidance: float | None = None,
        steps: int | None = None,
        noise_scale: float | None = None,
    ) -> list[Image.Image] | list[list[Image.Image]]:
        """Draw what is seen next, one picture for each action, each from the pictures before it.

        Args:
            frames: pictures seen so far, oldest first, or one alone; or a list of such lists, one for each entry of
                `actions`.
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
        seen = inputs.frames(frames)
        batched = not is_picture(seen[0])
        of_all: Any = (seen, actions) if batched else ([seen], [actions])
        if isinstance(of_all[1], str) or not isinstance(of_all[1], Sequence) or len(of_all[0]) != len(of_all[1]):
            raise Mistake(f"there are {len(of_all[0])} lists of frames; give as many actions, in a list")
        sampler = inputs.sampler(guidance, steps, noise_scale)
        keys = None if self.steering is None else Steering.load(self.steering)
        asked = [
            Prompt(
                "imagine",
                "frames",
                tuple(inputs.pixels(inputs.frames(shown), self.image_size)),
                action_texts(list(done) if isinstance(done, tuple) else done, keys),
                sampler=sampler,
            )
            for shown, done in zip(*of_all, strict=True)
        ]
        drawn = [[inputs.image(frame) for frame in answer.frames] for answer in self.answer(asked, seed)]
        return drawn if batched else drawn[0]

    def answer(self, prompts: Sequence[Prompt | Mapping[str, Any]], seed: Seeds | None = None) -> list[Answer]:
        """Answer prompts of any kind, also those that have texts and pictures in turns.

        Args:
            prompts: mappings as in a file of prompts, such as `{"draw": "fox", "repeat": 4}`, whose pictures may be of
                any type; or `lit_mm.prompt.Prompt` with pictures (3, image_size, image_size) uint8.
            seed: see the class; the prompts' own by default.

        Returns:
            One for each prompt, in order; a mapping with `repeat` or `counterfactuals` has several.

        Raises:
            Mistake: one of them is no prompt, or cannot be answered.
        """
        asked = inputs.prompts(prompts, self.image_size, self.steering, self.template)
        if seed is not None:
            seeds = inputs.seeds(seed, len(asked))
            asked = [replace(prompt, seed=number) for prompt, number in zip(asked, seeds, strict=True)]
        answers: list[Answer] = []
        for start in range(0, len(asked), AT_ONCE):
            for answer in answer_all(self.decoder, asked[start : start + AT_ONCE], self.context):
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
        images, vision = inputs.pixels(pictures, self.image_size), self.decoder.vision
        if not images:
            return torch.zeros(0, vision.num_tokens, vision.channels, device=self.device)
        parts = torch.stack(images).split(AT_ONCE)
        tokens = torch.cat([vision.encode(part.to(self.device)) for part in parts])
        return tokens[0] if is_picture(pictures) else tokens

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Image.Image | list[Image.Image]:
        """The way back: a picture of (N, C), a list of them of (pictures, N, C).

        Raises:
            Mistake: they are of another shape.
        """
        several = inputs.tokens(tokens, self.decoder.vision.num_tokens, self.decoder.vision.channels)
        if not len(several):
            return []
        images = [
            inputs.image(one) for part in several.split(AT_ONCE) for one in self.decoder.decode(part.to(self.device))
        ]
        return images if tokens.ndim == 3 else images[0]

    def logits(self, texts: str | tuple[Part, ...] | list[str | tuple[Part, ...]]) -> Tensor | list[Tensor]:
        """Scores of the next token behind every position.

        Position 0 is `<bos>`, then come the tokens of the text: row t scores what follows the first t + 1 of them, and
        `decoder.tokenizer.encode(text)` gives their ids. Behind the tokens of pictures nothing is ever predicted.

        Args:
            texts: a text, or a tuple of texts (`str`) and pictures (of any other type) in reading order; or a list of
                texts and such tuples. Every picture stands between `<boi>` and `<eoi>`.

        Returns:
            (T, vocabulary) float32 on the model's device, T positions; a list of these for a list.

        Raises:
            Mistake: a text is longer than the rows the model was trained on.
        """
        one = isinstance(texts, str | tuple)
        given = [texts] if one else inputs.several(texts, "texts")
        rows = [self._row(inputs.several(text, "a text")) for text in given]
        found = [
            one for start in range(0, len(rows), AT_ONCE) for one in self.decoder.score(rows[start : start + AT_ONCE])
        ]
        scores = [logits.float() for logits in found]
        return scores[0] if one else scores

    def _row(self, parts: Sequence[Part]) -> list[Segment]:
        t, row = self.decoder.tokenizer, list[Segment]()
        opening: list[int | str] = [t.bos_id]
        for part in parts:
            if isinstance(part, str):
                opening.append(part)
            else:
                row += [Text(t.ids(*opening, t.boi_id)), Frame(as_picture(part, self.image_size), clean=True)]
                opening = [t.eoi_id]
        row.append(Text(t.ids(*opening)))
        if (length := Document(tuple(row), "text").length(self.decoder.vision.num_tokens)) > self.context:
            raise Mistake(f"a text takes {length} positions, but the model was trained on rows of {self.context}")
        return row

    def _write(
        self,
        asked: Sequence[Prompt],
        seed: Seeds,
        max_tokens: int,
        stop: Sequence[str],
        sampling: dict[str, float],
    ) -> list[str]:
        most, stops, how = inputs.whole("max_tokens", max_tokens), inputs.stops(stop), inputs.sampling(sampling)
        prompts = [replace(one, max_tokens=most, stop=stops, sampling=how) for one in asked]
        return [answer.text for answer in self.answer(prompts, seed)]

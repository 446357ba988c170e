"""Prompts for `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_modules.prompting.asked_values import count_of, is_whole, list_of, sampler_of, sampling_of, square_of, text_of
from data_modules.prompting.prompt_items import GIVEN, STDIN, Item, check_name, check_names, pictures_of, read_items
from data_modules.prompting.steering import Steering, action_texts
from data_modules.prompting.template import Template, asked_turns
from data_modules.reading.decoding import VideoReader, index_video
from data_modules.reading.pictures import as_picture, is_picture
from lit_mm.mistake import Mistake
from lit_mm.packaged import packaged
from lit_mm.prompt import FailedPrompt, Prompt, Wanted

_WANTED: tuple[Wanted, ...] = ("any", "text", "image")


class Prompts(Dataset[Prompt | FailedPrompt]):
    """Prompts of a YAML list, of JSON lines, of lines of standard input or of a folder of pictures, read one by one.

    Every item has one of

    - `draw: CAPTION`,
    - `describe: PICTURE` (or a folder: each of its pictures), with `question: TEXT` if there is one,
    - `answer: TEXT` with `pictures` (a file or a list) if there are some, or `answer: [{user: TEXT}, {assistant: TEXT},
      {user: TEXT}]`, written down by the template of conversations; `<image>` says where a picture stands,
    - `continue: TEXT`,
    - `imagine: VIDEO` with `frames` (their numbers), or `imagine: [PICTURE, …]`, shown first; `actions` to take: a
      sequence such as `W*4 LEFT "look up"*2` (see `data_modules.prompting.steering`) or a list of texts; or
      `counterfactuals`, several of those by name, all from the same frames with the same seed,
    - `interleave: [{text: …}, {picture: FILE}, …]`, with `wanted: any` (default), `text` or `image`,

    and may have

    - `name`: of the output files; its number in the list by default,
    - `seed` (0), `repeat` (1): how many answers, with seeds counted up from `seed`,
    - `max_tokens` (64), `temperature` (0), `top_k`, `top_p`, `min_p`, `stop` (texts): of text,
    - `max_frames` (4): most pictures where they come as the model likes,
    - `truth`: with `draw` a picture; with `imagine` numbers of the video's frames, or a list of pictures. It is shown
      to people beside the answer, never to the model.
    - `crop` (centre), where there are pictures: how they become squares, `squash` or `four_thirds` as the data has it.
    - `steps`, `method`, `guidance_scale`, `noise_scale`: of drawing, those of the model's sampler by default.

    Paths are relative to the file, to the working folder, or to the package (`configs/prompts/lab/…`). A prompt
    that cannot be asked becomes a `FailedPrompt`.

    Args:
        source: a path, `-`, or `GIVEN`.
        image_size: side to which pictures are brought.
        steering: what keys mean.
        text: what came by standard input, or the mappings that are given.
        first: number of the first item.
        template: how turns of conversations are written down.

    Raises:
        Mistake: the source cannot be read as a whole; see `data_modules.prompting.prompt_items`.
        MissingFile: it is not there.
    """

    def __init__(
        self,
        source: str,
        image_size: int,
        steering: Steering | None = None,
        text: str | list[Any] | None = None,
        first: int = 0,
        template: Template | None = None,
    ) -> None:
        self.image_size, self.steering, self.template = image_size, steering, template or Template()
        self.folder = Path(source).parent if source not in (STDIN, GIVEN) else Path()
        self.items = [one for settings in read_items(source, text, first) for one in self._expanded(settings)]
        check_names([item.name for item in self.items], source)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Prompt | FailedPrompt:
        item = self.items[index]
        try:
            if item.error:
                raise Mistake(item.error)
            return self._prompt(item)
        except (Mistake, OSError) as error:
            sentence = " ".join(str(error).split())
            return FailedPrompt(item.name, f"prompt '{item.name}': {sentence}", item.group, item.settings)

    # ---- from items to prompts

    def _expanded(self, settings: dict[str, Any]) -> list[Item]:
        """One for each repetition of each picture or way to act; a single one where that cannot be told."""
        name = settings["name"]
        ways: dict[str, Any] = {name: None}
        try:
            repeat = count_of(settings, "repeat", 1)
            if "counterfactuals" in settings:
                ways = {f"{name}-{way}": actions for way, actions in self._counterfactuals(settings).items()}
            elif isinstance(settings.get("describe"), str) and (folder := self._folder(settings["describe"])):
                ways = {f"{name}-{stem}": file for stem, file in pictures_of(folder).items()}
                if not ways:
                    raise Mistake(f"there is no picture in the folder '{folder}'; name a picture, or one with some")
        except (Mistake, OSError) as error:
            return [Item(name, name, settings, error=str(error))]
        return [
            Item(way if repeat == 1 else f"{way}-{i}", name, settings, i, shown)
            for way, shown in ways.items()
            for i in range(repeat)
        ]

    def _counterfactuals(self, settings: dict[str, Any]) -> dict[str, Any]:
        given = settings["counterfactuals"]
        if not isinstance(given, dict) or not given:
            raise Mistake(f"'counterfactuals' is {given!r}; give actions by name, such as {{left: LEFT*4}}")
        for way in given:
            check_name(str(way), "'counterfactuals'")
        return {str(way): actions for way, actions in given.items()}

    def _folder(self, name: str) -> Path | None:
        return next((path for path in self._candidates(name) if path.is_dir()), None)

    def _prompt(self, item: Item) -> Prompt:
        asked = item.settings
        wanted, parts, actions = self._contents(item)
        stop = [asked["stop"]] if isinstance(asked.get("stop"), str) else asked.get("stop", [])
        if not isinstance(stop, list) or not all(isinstance(text, str) and text for text in stop):
            raise Mistake(f"'stop' is {asked['stop']!r}; give a text, or a list of texts")
        if item.kind == "answer":
            stop = [*stop, *self.template.stop]
        return Prompt(
            item.name,
            wanted,
            parts,
            actions,
            seed=count_of(asked, "seed", 0) + item.repetition,
            max_tokens=count_of(asked, "max_tokens", 64),
            max_frames=count_of(asked, "max_frames", 4),
            sampling=sampling_of(asked),
            sampler=sampler_of(asked),
            stop=tuple(stop),
            truth=self._truth(item.kind, asked),
            group=item.group,
            settings=asked,
        )

    def _contents(self, item: Item) -> tuple[Wanted, tuple[str | Tensor, ...], tuple[str, ...]]:
        asked = item.settings
        if item.kind == "draw":
            return "image", (text_of(asked, "draw"),), ()
        if item.kind == "continue":
            return "text", (text_of(asked, "continue"),), ()
        if item.kind == "describe":
            picture = self._picture("describe", asked["describe"] if item.shown is None else item.shown, asked)
            question = (text_of(asked, "question"),) if "question" in asked else ()
            return "text", (picture, *question), ()
        if item.kind == "answer":
            return "text", tuple(self._conversation(asked)), ()
        if item.kind == "imagine":
            actions = action_texts(asked.get("actions") if item.shown is None else item.shown, self.steering)
            return "frames", tuple(self._frames(asked, "frames")), actions
        wanted = asked.get("wanted", "any")
        if wanted not in _WANTED:
            raise Mistake(f"'wanted' is {wanted!r}; give one of {', '.join(_WANTED)}")
        return (
            wanted,
            tuple(self._part(part, asked) for part in list_of(asked, "interleave", "{text: …} and {picture: FILE}")),
            (),
        )

    def _conversation(self, asked: dict[str, Any]) -> list[Any]:
        shown = asked.get("pictures", [])
        shown = shown if isinstance(shown, list) else [shown]
        turns = [
            (
                role,
                [
                    self._picture("pictures", shown[one["number"]], asked) if isinstance(one, dict) else one
                    for one in said
                ],
            )
            for role, said in asked_turns(asked["answer"], len(shown))
        ]
        return self.template.asked(turns)

    # ---- files

    def _candidates(self, name: str | Path) -> tuple[Path, Path]:
        return self.folder / name, Path(packaged(str(name), self.folder, Path()))

    def _path(self, key: str, name: Any) -> Path:
        if not isinstance(name, str | Path):
            raise Mistake(f"'{key}' is {name!r}; give the path of a file")
        for candidate in self._candidates(name):
            if candidate.is_file():
                return candidate
        beside = f"neither in '{self.folder}' nor " if self.folder != Path() else ""
        raise Mistake(f"'{key}': there is no file '{name}' {beside}in the working folder; give one that is there")

    def _picture(self, key: str, name: Any, asked: dict[str, Any]) -> Tensor:
        own = isinstance(name, str | Path) or not is_picture(name)  # from Python a picture may be given itself
        to = square_of(asked, self.image_size)
        return as_picture(self._path(key, name) if own else name, to.size, to.cut)

    def _part(self, part: Any, asked: dict[str, Any]) -> str | Tensor:
        if isinstance(part, dict) and part.keys() == {"picture"}:
            return self._picture("picture", part["picture"], asked)
        if isinstance(part, dict) and part.keys() == {"text"}:
            return text_of(part, "text")
        raise Mistake(f"'interleave' has a part {part!r}; give {{text: …}} or {{picture: FILE}}")

    def _frames(self, asked: dict[str, Any], key: str) -> list[Tensor]:
        """Frames of the video to act in, by the numbers in `key`; or pictures that are listed in place of one."""
        shown = asked["imagine"]
        if isinstance(shown, list):
            if "frames" in asked:
                raise Mistake("'frames' are of a video, but 'imagine' is a list of pictures; leave 'frames' out")
            listed = "imagine" if key == "frames" else key
            return [self._picture(listed, name, asked) for name in list_of(asked, listed, "pictures")]
        path = self._path("imagine", shown)
        index = index_video(path)
        numbers = list_of(asked, key, f"numbers of frames of '{shown}', from 0 to {len(index) - 1}")
        for number in numbers:
            if not is_whole(number) or not 0 <= number < len(index):
                raise Mistake(f"'{key}' has {number!r}, but '{shown}' has the frames 0 to {len(index) - 1}")
        to = square_of(asked, self.image_size)
        return [to(frame) for frame in VideoReader().read(str(path), index, numbers)]

    def _truth(self, kind: str, asked: dict[str, Any]) -> Tensor | None:
        if "truth" not in asked:
            return None
        return torch.stack(
            self._frames(asked, "truth") if kind == "imagine" else [self._picture("truth", asked["truth"], asked)]
        )


def prompts_of(
    mapping: dict[Any, Any], image_size: int, steering: Steering | None, number: int, template: Template | None = None
) -> list[Prompt | FailedPrompt]:
    """Prompts of one mapping as in `Prompts`, whose pictures may also be given as `lit_mm.load` takes them.

    Args:
        mapping: what is asked.
        image_size: side to which pictures are brought.
        steering: what keys mean.
        number: of the mapping, which is its name where it has none.
        template: how turns of conversations are written down.

    Raises:
        Mistake: it is of no kind, or has an option that there is not.
    """
    asked = Prompts(GIVEN, image_size, steering, [mapping], number, template)
    return [asked[i] for i in range(len(asked))]

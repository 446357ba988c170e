"""Prompts for `predict` from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils.data import Dataset

from data_modules.decoding import VideoReader, index_video
from data_modules.pictures import read_picture, square
from lit_mm.prompt import Prompt

_KINDS = {
    "draw": "a caption to draw",
    "describe": "a picture file to describe",
    "continue": "a text to go on with",
    "imagine": "a video file whose frames come first, with 'frames' and 'actions'",
}
_OPTIONS = {"name", "seed", "max_tokens", "temperature", "frames", "actions", "repeat"}


class PromptFile(Dataset[Prompt]):
    """A YAML list of prompts, read one by one.

    Every item has one of `draw: CAPTION`, `describe: PICTURE`, `continue: TEXT` or `imagine: VIDEO`, and may have

    - `name`: of the output files; its number in the list by default,
    - `seed` (0), `repeat` (1): how many answers, with seeds counted up from `seed`,
    - `max_tokens` (64), `temperature` (0): of text,
    - `frames`: the video's frame numbers shown first, `actions`: one text per frame to imagine.

    Paths are relative to the YAML file, or to the working folder.

    Args:
        path: the YAML file.
        image_size: side to which pictures are brought.

    Raises:
        ValueError: the file is not such a list; the sentence says which item and what is wrong.
        FileNotFoundError: the file or a picture is not there.
    """

    def __init__(self, path: str, image_size: int) -> None:
        self.path, self.image_size = Path(path), image_size
        if not self.path.is_file():
            raise FileNotFoundError(f"data.prompts: no file '{path}'; give a YAML list of prompts")
        items = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        if not isinstance(items, list) or not items:
            raise ValueError(f"data.prompts: '{path}' has to hold a YAML list of prompts")
        self.items: list[dict[str, Any]] = []
        for number, item in enumerate(items):
            self._check(number, item)
            base = str(item.get("name", number))
            repeat = int(item.get("repeat", 1))
            for i in range(repeat):
                name = base if repeat == 1 else f"{base}-{i}"
                self.items.append({**item, "name": name, "seed": int(item.get("seed", 0)) + i})
        names = [item["name"] for item in self.items]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"data.prompts: '{path}' has two prompts named '{twice[0]}'; names become file names")

    def _check(self, number: int, item: Any) -> None:
        where = f"data.prompts: item {number} of '{self.path}'"
        kinds = ", ".join(f"'{k}' ({v})" for k, v in _KINDS.items())
        if not isinstance(item, dict) or len(_KINDS.keys() & item.keys()) != 1:
            raise ValueError(f"{where} needs exactly one of {kinds}")
        unknown = item.keys() - _KINDS.keys() - _OPTIONS
        if unknown:
            raise ValueError(f"{where} has an unknown key '{sorted(unknown)[0]}'; known: {', '.join(sorted(_OPTIONS))}")
        if "imagine" in item and not ("frames" in item and item.get("actions")):
            raise ValueError(f"{where}: 'imagine' needs 'frames' (numbers) and 'actions' (texts)")
        for key in ("describe", "imagine"):
            if key in item:
                self._resolve(where, item[key])

    def _resolve(self, where: str, name: str) -> Path:
        for candidate in (self.path.parent / name, Path(name)):
            if candidate.is_file():
                return candidate
        raise FileNotFoundError(f"{where}: no file '{name}', neither beside the YAML file nor in the working folder")

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Prompt:
        item = self.items[index]
        where = f"data.prompts: '{item['name']}' of '{self.path}'"
        name, seed = item["name"], item["seed"]
        if "draw" in item:
            return Prompt(name, "image", (str(item["draw"]),), seed=seed)
        if "imagine" in item:
            frames = self._frames(where, item["imagine"], item["frames"])
            return Prompt(name, "frames", tuple(frames), actions=tuple(item["actions"]), seed=seed)
        part = (
            read_picture(self._resolve(where, item["describe"]), self.image_size)
            if "describe" in item
            else str(item["continue"])
        )
        return Prompt(
            name,
            "text",
            (part,),
            seed=seed,
            max_tokens=int(item.get("max_tokens", 64)),
            sampling={"temperature": float(item.get("temperature", 0.0))},
        )

    def _frames(self, where: str, name: str, numbers: list[int]) -> Tensor:
        path = self._resolve(where, name)
        index = index_video(path)
        outside = [n for n in numbers if not 0 <= n < len(index)]
        if outside:
            raise ValueError(f"{where} asks for frame {outside[0]}, but '{name}' has frames 0 to {len(index) - 1}")
        frames = VideoReader().read(str(path), index, numbers)
        return torch.stack([square(frame, self.image_size) for frame in frames])

"""`python -m data_modules.recipes <recipe> --out PATH`: prepare real data for training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jsonargparse import auto_cli

from data_modules.recipes.clips import clips
from data_modules.recipes.crafter import crafter
from data_modules.recipes.drawing_styles import drawing_styles
from data_modules.recipes.drawings import drawings
from data_modules.recipes.everything import everything
from data_modules.recipes.game_captions import game_captions
from data_modules.recipes.gameplay import gameplay, raw_gameplay, raw_video
from data_modules.recipes.nwm import nwm
from data_modules.recipes.speeches import speeches
from data_modules.recipes.tokenizer import tokenizer
from lit_mm.mistake import ends_with_a_sentence


def tiny(out: Path = Path("data/tiny"), seed: int = 0, workers: int = 2) -> None:
    """Prepare the tiny mixture, all four kinds of data and a tokenizer, and captioned views of the game, in a minute.

    Args:
        out: folder to make.
        seed: of the game play.
        workers: processes to play in.
    """
    speeches(out / "text")
    drawings(out / "image_text")
    tokenizer(out / "tokenizer.json", (out / "text" / "train", out / "image_text" / "train"))
    raw_video(out / "video", seed, workers)
    gameplay(out / "action_video", seed=seed, workers=workers)
    game_captions(out / "game_captions", seed=seed, workers=workers)


def main() -> None:
    """Run the recipe that the command line names."""
    recipes: list[Callable[..., object]] = [
        tiny,
        crafter,
        everything,
        speeches,
        drawings,
        drawing_styles,
        clips,
        gameplay,
        raw_gameplay,
        game_captions,
        nwm,
        tokenizer,
    ]
    with ends_with_a_sentence():
        auto_cli({recipe.__name__: recipe for recipe in recipes}, as_positional=False)


if __name__ == "__main__":
    main()

"""The laboratory's data: pictures, videos, walks, questions and texts of Crafter, with all that is true of them."""

from __future__ import annotations

from pathlib import Path

from data_modules.recipes.packages import package_versions
from data_modules.recipes.prepare import Counts

LICENCE = """Maps, creatures and textures: Crafter, Copyright (c) 2021 Danijar Hafner, MIT License:

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def crafter(
    out: Path = Path("data/crafter"),
    view: int = 8,
    night: float = 0.0,
    busy: float = 4.0,
    without: tuple[str, ...] | str = (),
    maps: int = 64,
    pictures: int = 12_000,
    videos: int = 60,
    episodes: int = 400,
    frames: int = 120,
    texts: int = 12_000,
    seed: int = 0,
    workers: int = 2,
) -> Counts:
    """Prepare a small world in which everything is known: Crafter's maps, seen from above, in some minutes.

    Train, val and test have maps of their own: val 4 % and test 10 % of the sizes below, which are those of training.

    Args:
        out: folder to make: drawing, reading and questions (pictures with captions), plain (captioned pictures with
            little in them), video, action_video (with tables of what the player was told), bumps (the same of a player
            who is often blocked), text (of maps that are seen nowhere) and speeches, each with train, val and test;
            what is true of each picture, frame and text lies beside it. world.json and templates_*.png say what
            each tile is and looks like; tokenizer.json is made for these texts.
        view: tiles on a side of the pictures of 64 pixels: 4, 8 or 16.
        night: share of pictures, episodes and texts at night, which is dark and noisy.
        busy: creatures and things for each hundred tiles that can be walked on.
        without: what is cut from training, as stream:concept, several in brackets or with commas, such as
            generation:diamond, reading:water:left, video:facing:left or text:trees:3. Streams are generation (the
            folders drawing and plain), reading, questions, video (video, action_video and bumps) and text.
        maps: that are seen; others, a fifth as many, are only told of in texts.
        pictures: for each of drawing, reading, questions and plain.
        videos: without actions.
        episodes: with actions; half as many more are bumps.
        frames: of each video and episode, four a second.
        texts: descriptions and short walks.
        seed: the same seed gives the same bytes, with any number of workers.
        workers: processes to work in.
    """
    packages = package_versions("crafter", "opensimplex")
    from data_modules.recipes.crafter_world import Crafter
    from data_modules.recipes.world_data import Plan, Sizes
    from data_modules.recipes.world_recipe import prepare_world

    cuts = tuple(without.replace(",", " ").split()) if isinstance(without, str) else without
    sizes = Sizes(maps, pictures, videos, episodes, frames, texts)
    plan = Plan(Crafter(view, busy), sizes, seed, night, tuple(sorted(set(cuts))))
    return prepare_world(out, plan, workers, LICENCE, packages)

"""The game as a judge: what is truly seen, and where one truly stands, after any keys from any place.

The simulator gives the same frames for the same seed and keys, so one beginning can be gone on from in several ways:
the truth of every counterfactual.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from data_modules.encoding import resize
from data_modules.game.episode import TICS_PER_SECOND, Episode, brightening, middle, pressed, start
from data_modules.game.policy import Wanderer
from data_modules.game.wad import starting_places
from data_modules.reading.actions import Pose, action_text
from data_modules.reading.decoding import VIDEO_SUFFIXES
from data_modules.reading.files import find_files
from lit_mm.mistake import Mistake

if TYPE_CHECKING:
    from data_modules.action_video import ActionVideoSource

Keys = tuple[str, ...]
TURNS: tuple[Keys, ...] = (("LEFT",), ("RIGHT",))
MOVES: tuple[Keys, ...] = (("W",), ("S",), ("A",), ("D",))
_ATTEMPTS = 20
_MOST_SPEED = 30.0  # map units a tic that anyone can go; what is faster was moved by a teleporter
_MOST_PUSH = 40.0  # of the engine's buttons; running sideways is capped there


@dataclass(frozen=True)
class View:
    """What a model of the game sees and is told; the fields mean what they mean in `ActionVideoSource`.

    Args:
        image_size: side of the frames in pixels.
        unit: map units that count as 1.0 of dx and dy.
        context: frames that are read before an action.
        frame_step: recorded frames, of four tics each, from one frame to the next.
        horizon: the longest prediction in steps, of which one step is `rel_t`.
    """

    image_size: int
    unit: float
    context: int
    frame_step: int
    horizon: int


def held_out(maps: Sequence[str], data: ActionVideoSource, image_size: int, gamma: float, seed: int) -> list[Simulator]:
    """A simulator of each map, which shows what the source shows.

    Args:
        maps: of Freedoom 2, none of which may be trained on.
        data: the source that is trained on.
        image_size: side of the frames in pixels.
        gamma: see `Simulator`.
        seed: of the game.

    Raises:
        Mistake: an episode of the training split is of one of them, or one is named twice.
    """
    if twice := [level for level in maps if list(maps).count(level) > 1]:
        raise Mistake(f"maps names '{twice[0]}' twice; name every map once")
    files = find_files(data.paths["train"] or "", VIDEO_SUFFIXES, f"{data.key}.train")
    for level in maps:
        trained = [file for file in files if f"_{level}_".lower() in file.name.lower()]
        if trained:
            raise Mistake(f"maps names '{level}', but '{trained[0]}' of it is trained on; name maps that are held out")
    view = View(image_size, data.unit, data.context, data.frame_step, data.horizon)
    return [Simulator(level, view, gamma, seed) for level in maps]


@dataclass(frozen=True)
class Walk:
    """Some steps through the game.

    Attributes:
        frames: (steps + 1, 3, image_size, image_size) uint8, the first before any step.
        poses: of each frame.
        actions: texts of the steps.
    """

    frames: Tensor
    poses: list[Pose]
    actions: list[str]


@dataclass(frozen=True)
class Beginning:
    """How the player came to where a case begins: its place, tics of turning, and keys of every recorded frame."""

    place: tuple[int, int]
    turn: int
    keys: tuple[Keys, ...]


@dataclass(frozen=True)
class Case:
    """A beginning and ways to go on from it.

    Attributes:
        level: map of the game.
        beginning: how to get there again.
        context: (context, 3, image_size, image_size) uint8, oldest first.
        walks: by name; each begins at the last frame of the context.
    """

    level: str
    beginning: Beginning
    context: Tensor
    walks: dict[str, Walk]


class Simulator:
    """Plays one level again and again.

    Args:
        level: map of Freedoom 2, such as `map14`.
        view: what is seen.
        gamma: brightens the picture, as in the recipe that made the training data.
        seed: of the game.
    """

    def __init__(self, level: str, view: View, gamma: float, seed: int = 0) -> None:
        self.view, self.level, self.seed = view, level, seed
        self.episode = Episode("freedoom2", level, 0, 0, 4, view.image_size, seed, monsters=False, gamma=gamma)
        self.curve = brightening(gamma)

    @contextmanager
    def game(self, place: tuple[int, int], turn: int) -> Iterator[Any]:
        """At rest at a place, having turned left for so many tics."""
        with TemporaryDirectory() as folder:
            game = start(self.episode, str(Path(folder) / "engine.ini"), deltas=True)
            try:
                game.send_game_command("god")
                game.send_game_command(f"warp {place[0]} {place[1]}")
                game.make_action(pressed(("LEFT",)), turn)
                game.make_action(pressed(()), TICS_PER_SECOND)
                yield game
            finally:
                game.close()

    def seen(self, game: Any) -> tuple[np.ndarray, Pose]:
        """The picture (image_size, image_size, 3) uint8 and the pose."""
        state = game.get_state()
        size = self.view.image_size
        return self.curve[resize(middle(state.screen_buffer), size, size)], Pose(*map(float, state.game_variables))

    def _step(self, game: Any, keys: Keys, before: Pose) -> tuple[np.ndarray, Pose] | None:
        """One recorded frame on; None where the level ends or a teleporter is met, whose jump no keys explain."""
        game.make_action(pressed(keys), self.episode.tics)
        if game.is_episode_finished():
            return None
        image, pose = self.seen(game)
        jumped = np.hypot(pose.x - before.x, pose.y - before.y) > _MOST_SPEED * self.episode.tics
        return None if jumped else (image, pose)

    def case(self, number: int, steps: int, held: Sequence[Keys] = (), held_steps: int = 0) -> Case:
        """A scripted player wanders, and goes on so for `steps` steps; each of `held` is held instead.

        Args:
            number: decides place and player; the same number gives the same case.
            steps: of the walk named `wander`; 0 for none.
            held: keys, each held for a walk named by them, such as `W`.
            held_steps: of each of those.

        Raises:
            Mistake: no place of this level lets one walk so far.
        """
        key = zlib.crc32(self.level.encode())
        places = starting_places(self.episode.wad_file, self.level)
        for attempt in range(_ATTEMPTS):
            random = np.random.default_rng([self.seed, key, number, attempt])
            place, turn = places[int(random.integers(len(places)))], int(random.integers(1, 100))
            before = (self.view.context - 1) * self.view.frame_step
            warm = before + int(random.integers(0, 40))
            wandered = self._wander(place, turn, random, warm + steps * self.view.frame_step)
            if wandered is None:
                continue
            keys, seen = wandered
            walks = {"wander": self._walk(seen[warm :: self.view.frame_step])} if steps else {}
            beginning = Beginning(place, turn, tuple(keys[:warm]))
            held_frames = held_steps * self.view.frame_step
            replays = {"+".join(one): self._replay(beginning, [one] * held_frames) for one in held}
            if any(replay is None for replay in replays.values()):
                continue
            step = self.view.frame_step
            walks |= {name: self._walk(replay[::step]) for name, replay in replays.items() if replay is not None}
            shown = [image for image, _ in seen[warm - before : warm + 1 : self.view.frame_step]]
            return Case(self.level, beginning, torch.stack([_picture(image) for image in shown]), walks)
        raise Mistake(f"no place of '{self.level}' lets one walk {steps} and {held_steps} steps; use another map")

    def _wander(
        self, place: tuple[int, int], turn: int, random: np.random.Generator, frames: int
    ) -> tuple[list[Keys], list[tuple[np.ndarray, Pose]]] | None:
        player, chosen = Wanderer(random, self.episode.tics), []
        with self.game(place, turn) as game:
            seen, moved = [self.seen(game)], 0.0
            for _ in range(frames):
                chosen.append(player.step(moved))
                step = self._step(game, chosen[-1], seen[-1][1])
                if step is None:
                    return None
                moved = float(np.hypot(step[1].x - seen[-1][1].x, step[1].y - seen[-1][1].y))
                seen.append(step)
        return chosen, seen

    def _replay(self, beginning: Beginning, keys: Sequence[Keys]) -> list[tuple[np.ndarray, Pose]] | None:
        """What is seen from the end of a beginning on."""
        with self.game(beginning.place, beginning.turn) as game:
            seen = [self.seen(game)]
            for pressed_keys in (*beginning.keys, *keys):
                step = self._step(game, pressed_keys, seen[-1][1])
                if step is None:
                    return None
                seen.append(step)
        return seen[len(beginning.keys) :]

    def follow(self, beginning: Beginning, deltas: Sequence[tuple[float, float, float]]) -> Walk:
        """Go on from a beginning by dx, dy and dyaw of every step, as far as walls and the player's speed allow.

        The player turns evenly and is pushed, tic by tic, towards where the step ends. Where the level ends or a
        teleporter is met it stays where it was last seen.

        Args:
            beginning: of a case.
            deltas: dx forward and dy to the left in multiples of the view's unit, dyaw to the left in radians.
        """
        with self.game(beginning.place, beginning.turn) as game:
            for keys in beginning.keys:
                game.make_action(pressed(keys), self.episode.tics)
            kept, speed = [self.seen(game)], np.zeros(2)
            for delta in deltas:
                ended, speed = self.pushed(game, delta, speed)
                if ended:
                    break
                kept.append(self.seen(game))
        return self._walk([*kept, *[kept[-1]] * (len(deltas) + 1 - len(kept))])

    def pushed(self, game: Any, delta: tuple[float, float, float], speed: np.ndarray) -> tuple[bool, np.ndarray]:
        """One step by dx, dy and dyaw, see `follow`, of a player who has a speed (2,) in map units a tic.

        Returns:
            Whether the level's end or a teleporter cut it short, and the speed (2,) after it.
        """
        tics, start = self.view.frame_step * self.episode.tics, self.seen(game)[1]
        goal = np.array([start.x, start.y]) + _turned(np.array(delta[:2]) * self.view.unit, start.angle)
        turn = -np.degrees(delta[2]) / tics
        for tic in range(tics):
            before = self.seen(game)[1]
            wanted = (goal - [before.x, before.y]) / (tics - tic)
            # The engine keeps 29/32 of the speed and adds 1/32 of the push.
            push = _turned((wanted - speed * 29 / 32) * 32, -(before.angle - turn))
            push = np.clip(push, -_MOST_PUSH, _MOST_PUSH)
            game.make_action([*pressed(()), float(push[0]), float(-push[1]), turn], 1)
            if game.is_episode_finished():
                return True, speed
            after = self.seen(game)[1]
            speed = np.array([after.x - before.x, after.y - before.y])
            if np.hypot(*speed) > _MOST_SPEED:
                return True, speed
        return False, speed

    def _walk(self, kept: Sequence[tuple[np.ndarray, Pose]]) -> Walk:
        poses = [pose for _, pose in kept]
        rel_t, unit = 1 / self.view.horizon, self.view.unit
        actions = [action_text(a, b, rel_t, unit) for a, b in pairwise(poses)]
        return Walk(torch.stack([_picture(image) for image, _ in kept]), poses, actions)


def _turned(vector: np.ndarray, degrees: float) -> np.ndarray:
    """A vector (2,) turned counter-clockwise."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([cos * vector[0] - sin * vector[1], sin * vector[0] + cos * vector[1]])


def _picture(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1).contiguous()

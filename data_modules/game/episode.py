"""One episode of first-person play in ViZDoom, a function of its settings alone."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_modules.encoding import resize
from data_modules.game.policy import Wanderer
from data_modules.game.wad import starting_places
from data_modules.recipes.packages import package_folder

ATTEMPTS = 8
TICS_PER_SECOND = 35
BUTTONS = {
    "W": "MOVE_FORWARD",
    "A": "MOVE_LEFT",
    "S": "MOVE_BACKWARD",
    "D": "MOVE_RIGHT",
    "LEFT": "TURN_LEFT",
    "RIGHT": "TURN_RIGHT",
    "FIRE": "ATTACK",
}


@dataclass(frozen=True)
class Episode:
    """What decides every byte of an episode.

    Args:
        wad: levels, "freedoom1" or "freedoom2".
        level: map of them, such as "map01" or "E1M1".
        number: of the episode on this map; each starts at another place.
        frames: to record; fewer where the player meets an exit or a teleporter.
        tics: game time from frame to frame, in 1/35 s.
        size: side of the square frames in pixels.
        seed: of the game and of the player's choices.
        monsters: whether there are any; the player then carries a weapon and fires at times.
        gamma: brightens the picture, v -> v ** (1 / gamma) with v in [0, 1]; the game renders dark.
    """

    wad: str
    level: str
    number: int
    frames: int
    tics: int
    size: int
    seed: int
    monsters: bool
    gamma: float

    @property
    def name(self) -> str:
        """File name without ending."""
        return f"{self.wad}_{self.level}_{self.number:02d}"

    @property
    def wad_file(self) -> Path:
        """The file that holds the map."""
        return package_folder("vizdoom") / f"{self.wad}.wad"


class Moment(NamedTuple):
    """A frame (size, size, 3) uint8 with the pose it shows and the keys held until the next one.

    Position in map units, `angle` in degrees counter-clockwise, 0 along +x.
    """

    image: np.ndarray
    keys: tuple[str, ...]
    x: float
    y: float
    angle: float


DELTAS = ("MOVE_FORWARD_BACKWARD_DELTA", "MOVE_LEFT_RIGHT_DELTA", "TURN_LEFT_RIGHT_DELTA")


def start(episode: Episode, config: str, labels: bool = False, deltas: bool = False) -> Any:
    """A running ViZDoom game at the map's start.

    Args:
        episode: its map, seed and monsters are used.
        config: path of a settings file of the engine's own; the engine writes it if it is missing.
        labels: also render depth and what each pixel belongs to, show no weapon, and add a button that turns at once.
        deltas: add the buttons of `DELTAS`, which move and turn by a number.
    """
    import vizdoom

    game = vizdoom.DoomGame()
    game.set_doom_game_path(str(episode.wad_file))
    game.set_doom_config_path(config)
    game.set_doom_map(episode.level)
    buttons = [*BUTTONS.values(), *(["TURN_LEFT_RIGHT_DELTA"] if labels else DELTAS if deltas else [])]
    game.set_available_buttons([getattr(vizdoom.Button, name) for name in buttons])
    game.set_labels_buffer_enabled(labels)
    game.set_depth_buffer_enabled(labels)
    variable = vizdoom.GameVariable
    game.set_available_game_variables([variable.POSITION_X, variable.POSITION_Y, variable.ANGLE])
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_render_hud(False)
    game.set_render_weapon(episode.monsters and not labels)
    game.set_render_messages(False)
    game.set_render_screen_flashes(False)
    game.add_game_args("+cl_showsecretmessage 0")  # "A secret is revealed!" in the middle of the picture
    if not episode.monsters:
        game.add_game_args("-nomonsters")
    game.set_episode_timeout(2**30)
    game.set_seed(episode.seed)
    game.init()
    return game


def play(episode: Episode, config: str) -> list[Moment]:
    """Play an episode. Equal episodes give equal moments, in whatever process and order they are played.

    Some places have no way out, and some ways lead into an exit or a teleporter. Then it starts again elsewhere, and
    if that does not help either, the longest of a few attempts is taken.
    """
    best: list[Moment] = []
    for attempt in range(ATTEMPTS):
        moments = list(_attempt(episode, attempt, config))
        if len(moments) == episode.frames and _roams(moments, episode.tics):
            return moments
        best = max(best, moments, key=len)
    return best


def _roams(moments: list[Moment], tics: int) -> bool:
    """Whether the player got about: as far, in x or y, as walking freely for 3 % of the time takes it."""
    positions = np.array([(moment.x, moment.y) for moment in moments])
    return bool(np.ptp(positions, axis=0).max() >= 0.2 * tics * len(moments))


def _attempt(episode: Episode, attempt: int, config: str) -> Iterator[Moment]:
    key = zlib.crc32(f"{episode.wad} {episode.level}".encode())
    random = np.random.default_rng([episode.seed, key, episode.number, attempt])
    curve = brightening(episode.gamma)
    places = starting_places(episode.wad_file, episode.level)
    order = np.random.default_rng([episode.seed, key]).permutation(len(places))
    game = start(episode, config)
    try:
        x, y = places[order[(episode.number + attempt) % len(places)]]
        game.send_game_command("god")
        game.send_game_command(f"warp {x} {y}")
        game.make_action(pressed(("LEFT",)), int(random.integers(1, 100)))  # face anywhere
        game.make_action(pressed(()), TICS_PER_SECOND)  # and come to rest
        yield from _wander(game, episode, random, curve)
    finally:
        game.close()


def _wander(game: Any, episode: Episode, random: np.random.Generator, curve: np.ndarray) -> Iterator[Moment]:
    player = Wanderer(random, episode.tics)
    x, y, angle = game.get_state().game_variables
    moved = 0.0
    for frame in range(episode.frames):
        image = curve[resize(middle(game.get_state().screen_buffer), episode.size, episode.size)]
        keys = player.step(moved)
        if episode.monsters and random.random() < 0.2:
            keys = (*keys, "FIRE")
        ended = frame == episode.frames - 1
        following = (x, y, angle)
        if not ended:
            game.make_action(pressed(keys), episode.tics)
            ended = game.is_episode_finished()
        if not ended:
            following = tuple(game.get_state().game_variables)
            moved = float(np.hypot(following[0] - x, following[1] - y))
            # A teleporter's jump is no motion that the keys explain, so the episode ends before it.
            ended = moved > 30 * episode.tics
        yield Moment(image, () if ended else keys, float(x), float(y), float(angle))
        if ended:
            return
        x, y, angle = following


def pressed(keys: tuple[str, ...]) -> list[int]:
    """The buttons of `BUTTONS` that are down, as ViZDoom wants them."""
    return [int(name in keys) for name in BUTTONS]


def brightening(gamma: float) -> np.ndarray:
    """What each of the 256 values becomes under v -> v ** (1 / gamma)."""
    return np.round(255 * (np.arange(256) / 255) ** (1 / gamma)).astype(np.uint8)


def middle(screen: np.ndarray) -> np.ndarray:
    """The square in the middle of a screen (height, width, …)."""
    height, width = screen.shape[:2]
    left = (width - height) // 2
    return screen[:, left : left + height]

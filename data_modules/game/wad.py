"""The little that is read from a Doom level file: where players may start, and where things lie."""

from __future__ import annotations

import struct
from pathlib import Path

from lit_mm.mistake import Mistake

PLAYER_START, DEATHMATCH_START = 1, 11


def starting_places(wad: Path, level: str) -> list[tuple[int, int]]:
    """Positions (x, y) in map units where a level lets players start, alone or against each other.

    Raises:
        Mistake: the file has no such level.
    """
    return [(x, y) for x, y, kind in things(wad, level) if kind in (PLAYER_START, DEATHMATCH_START)]


def things(wad: Path, level: str) -> list[tuple[int, int, int]]:
    """Position (x, y) in map units and type of all that a level places: players, monsters, items, ornaments.

    A WAD file is a directory of named lumps. Behind a level's name comes its THINGS lump, ten bytes a thing: x, y,
    angle, type, flags (doomwiki.org/wiki/WAD, doomwiki.org/wiki/Thing).

    Raises:
        Mistake: the file has no such level.
    """
    data = wad.read_bytes()
    _, count, offset = struct.unpack_from("<4sii", data)
    lumps = list(struct.iter_unpack("<ii8s", data[offset : offset + 16 * count]))
    names = [name.rstrip(b"\0").decode("ascii") for _, _, name in lumps]
    if level.upper() not in names:
        raise Mistake(f"train_maps, val_maps: '{wad.name}' has no map '{level}'")
    start, size, _ = lumps[names.index(level.upper()) + 1]
    return [(x, y, kind) for x, y, _, kind, _ in struct.iter_unpack("<5h", data[start : start + size])]

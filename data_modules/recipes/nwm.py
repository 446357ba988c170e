"""Trajectories as NoMaD and Navigation World Models keep them, made readable without pickles."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from data_modules.dataset import BrokenFile
from data_modules.reading.array_pickle import read_arrays
from lit_mm.mistake import MissingFile

PICKLE, TABLE = "traj_data.pkl", "traj_data.csv"


def nwm(folder: Path) -> None:
    """Write a table of poses beside every `traj_data.pkl`, for `ActionVideoSource`.

    A trajectory is a folder of `0.jpg`, `1.jpg`, … with a pickle of `position` (frames, 2), in metres, and `yaw`
    (frames,), in radians. Of pickles arrays alone are read; one that asks for anything else is refused.

    Args:
        folder: of all trajectories; its subfolders are searched.

    Raises:
        MissingFile: there is no `traj_data.pkl`.
        BrokenFile: one has no poses.
    """
    print(f"{write_tables(folder)} tables beside the pictures of '{folder}'")


def write_tables(folder: Path) -> int:
    """As `nwm`, and return the number of tables."""
    files = sorted(folder.rglob(PICKLE))
    if not files:
        raise MissingFile(f"folder: there is no {PICKLE} in '{folder}' or below it")
    for file in files:
        positions, yaws = _poses(file)
        with open(file.with_name(TABLE), "w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            rows.writerow(["frame", "x", "y", "yaw"])
            rows.writerows(
                [i, *map(float, position), float(yaw)]
                for i, (position, yaw) in enumerate(zip(positions, yaws, strict=True))
            )
    return len(files)


def _poses(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions (frames, 2) and yaws (frames,)."""
    found = read_arrays(file)
    if not isinstance(found, dict) or not {"position", "yaw"} <= set(found):
        there = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise BrokenFile(file, f"position and yaw are expected in it, but there is {there}")
    try:
        positions = np.asarray(found["position"], np.float64)[:, :2]
        yaws = np.asarray(found["yaw"], np.float64).reshape(len(positions))
    except (TypeError, ValueError, IndexError) as error:
        raise BrokenFile(file, f"position (frames, 2) and yaw (frames,) are expected: {error}") from error
    return positions, yaws

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lit_mm.lab.scene import UNREADABLE, Scene, WorldFile
from lit_mm.lab.tiles import read_picture, read_tiles
from lit_mm.mistake import Mistake
from tests.lab.conftest import RandomScene


def drawn(world: WorldFile, scene: Scene) -> Tensor:
    """(3, 64, 64) uint8, template by template."""
    picture = torch.zeros(3, 64, 64, dtype=torch.uint8)
    for row, column in np.ndindex(8, 8):
        look = world.templates["night" if scene.night else "day"][scene.tiles[row, column]]
        picture[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = look
    return picture


def jpeg(picture: Tensor) -> Tensor:
    memory = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(memory, "JPEG", quality=90)
    return torch.from_numpy(np.array(Image.open(memory))).permute(2, 0, 1)


@pytest.fixture(scope="module")
def scenes(random_scene: RandomScene) -> list[Scene]:
    rng = np.random.default_rng(1)
    return [random_scene(rng) for _ in range(100)]


def test_pictures_are_read_as_they_were_drawn(world: WorldFile, scenes: list[Scene]) -> None:
    pictures = torch.stack([drawn(world, scene) for scene in scenes])
    reading = read_tiles(world, pictures)
    assert not reading.distance.any()
    for scene, read in zip(scenes, read_picture(world, pictures), strict=True):
        assert read.night == scene.night
        np.testing.assert_array_equal(read.tiles, scene.tiles)


def test_distances_are_mean_squares(world: WorldFile, scenes: list[Scene]) -> None:
    pictures = torch.stack([jpeg(drawn(world, scene)) for scene in scenes])
    reading = read_tiles(world, pictures)
    for frame, row, column in [(0, 0, 0), (7, 4, 4), (99, 7, 7)]:
        seen = pictures[frame, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].double()
        looks = world.templates["night" if reading.night[frame] else "day"].double()
        squares = ((looks - seen) ** 2).mean((1, 2, 3))
        assert reading.tiles[frame, row, column] == squares.argmin()
        assert reading.distance[frame, row, column] == pytest.approx(float(squares.min()))


def test_what_a_tokenizer_blurs_is_read_and_noise_is_not(world: WorldFile, scenes: list[Scene]) -> None:
    again = read_picture(world, torch.stack([jpeg(drawn(world, scene)) for scene in scenes]))
    right = [np.mean(read.tiles == scene.tiles) for scene, read in zip(scenes, again, strict=True)]
    assert np.mean(right) > 0.995
    noise = torch.randint(0, 256, (50, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert all((read.tiles == UNREADABLE).all() for read in read_picture(world, noise))


def test_no_picture_is_no_scene(world: WorldFile) -> None:
    assert read_picture(world, torch.zeros(0, 3, 64, 64, dtype=torch.uint8)) == []


def test_a_picture_of_another_size_is_refused(world: WorldFile) -> None:
    with pytest.raises(Mistake, match=r"1 x 3 x 32 x 32 uint8: world 'crafter' is seen in pictures 3 x 64 x 64 uint8"):
        read_picture(world, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(Mistake, match="float32"):
        read_picture(world, torch.zeros(1, 3, 64, 64))

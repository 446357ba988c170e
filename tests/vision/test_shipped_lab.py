"""The laboratory's tokenizers that come with the package, on a map they were not trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data_modules.recipes.crafter_world import Crafter
from lit_mm.flow.token_statistics import load_statistics
from lit_mm.lab.scene import WorldFile
from lit_mm.lab.tiles import read_tiles
from lit_mm.vision import Dual, Pixels, Rae, Vae

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world() -> WorldFile:
    return WorldFile.load(ROOT / "tests/lab/crafter/world.json")


@pytest.fixture(scope="module")
def views() -> tuple[Tensor, np.ndarray]:
    """Pictures (60, 3, 64, 64) uint8 as Crafter renders them, every fifth by night, and their tiles (60, 8, 8)."""
    crafter, random = Crafter(busy=8).start(987654321), np.random.default_rng(0)
    pictures, tiles = [], []
    for number in range(60):
        crafter.place(random, night=number % 5 == 4)
        pictures.append(torch.from_numpy(crafter.rendered()))
        tiles.append(crafter.scene().tiles)
    return torch.stack(pictures).permute(0, 3, 1, 2).contiguous(), np.stack(tiles)


@pytest.fixture(scope="module")
def rae() -> Rae:
    return Rae("rae_lab")


def test_tiles_of_drawn_pictures_are_read_right(rae: Rae, world: WorldFile, views: tuple[Tensor, np.ndarray]) -> None:
    pictures, tiles = views
    assert rae.num_tokens == world.rows * world.columns
    tokens = rae.encode(pictures)
    assert (read_tiles(world, rae.decode(tokens)).tiles == tiles).mean() >= 0.995
    # A generator does not quite hit a token either.
    noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0))
    assert (read_tiles(world, rae.decode(tokens + 0.3 * noise)).tiles == tiles).mean() >= 0.99


def test_statistics_are_of_its_tokens(rae: Rae, views: tuple[Tensor, np.ndarray]) -> None:
    mean, covariance, fingerprint = load_statistics("rae_lab")
    assert fingerprint == rae.fingerprint()
    tokens = rae.encode(views[0]).flatten(0, 1)
    # Of this map: about where those of all maps are, and as wide.
    assert (tokens.mean(0) - mean).abs().max() < 1
    assert 0.5 < float(tokens.var(0).sum() / covariance.trace()) < 2


def test_it_reads_while_pixels_are_drawn(rae: Rae) -> None:
    dual = Dual(rae, Pixels(64, 8))
    assert (dual.num_tokens, dual.read_channels, dual.channels) == (64, 64, 192)


def test_tiles_of_the_kl_autoencoder_are_read_right_by_day(world: WorldFile, views: tuple[Tensor, np.ndarray]) -> None:
    pictures, tiles = (part[[number % 5 != 4 for number in range(60)]] for part in views)
    vae = Vae("vae_lab", subfolder=None, image_size=64, patch_size=2)
    tokens = vae.encode(pictures)
    assert tokens.shape == (48, 64, 16)
    # This map has many of the thin arrows that it leaves out; of the recipe's test pictures it has 99.7 % right.
    assert (read_tiles(world, vae.decode(tokens)).tiles == tiles).mean() >= 0.99
    noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0))  # deviations are about 1
    assert (read_tiles(world, vae.decode(tokens + 0.3 * noise)).tiles == tiles).mean() >= 0.99

from __future__ import annotations

import pytest
import torch

from lit_mm.mistake import Mistake
from lit_mm.vision import Pixels


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_round_trip_is_exact_for_every_value(images: torch.Tensor) -> None:
    images[0].flatten()[:256] = torch.arange(256, dtype=torch.uint8)
    pixels = Pixels(image_size=28, patch_size=14)
    assert torch.equal(pixels.decode(pixels.encode(images)), images)


def test_tokens_are_the_patches_of_a_double_loop(images: torch.Tensor) -> None:
    pixels = Pixels(image_size=28, patch_size=7)
    tokens = pixels.encode(images)
    assert tokens.shape == (3, pixels.num_tokens, pixels.channels) == (3, 16, 147)
    for frame in range(3):
        for token in range(16):
            top, left = token // 4 * 7, token % 4 * 7
            patch = images[frame, :, top : top + 7, left : left + 7].permute(1, 2, 0).reshape(-1)
            torch.testing.assert_close(tokens[frame, token], patch / 255 * 2 - 1)


def test_black_and_white_are_the_ends_of_the_range() -> None:
    pixels = Pixels(image_size=16, patch_size=8)
    assert pixels.encode(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)).unique().tolist() == [-1.0]
    assert pixels.encode(torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)).unique().tolist() == [1.0]


def test_what_a_generator_overshoots_is_clipped() -> None:
    pixels = Pixels(image_size=16, patch_size=8)
    latents = torch.full((1, 4, 192), 1.3)
    latents[0, :2] = -7.0
    assert pixels.decode(latents).unique().tolist() == [0, 255]


@pytest.mark.parametrize(("size", "patch"), [(64, 15), (0, 4), (16, 0)])
def test_sizes_that_do_not_fit_are_refused(size: int, patch: int) -> None:
    with pytest.raises(Mistake, match=rf"image_size is {size}.*patch_size {patch}"):
        Pixels(size, patch)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, 3, 16, 16), torch.zeros(2, 1, 16, 16).byte()],
    ids=["other size", "float", "grey"],
)
def test_pictures_it_cannot_take_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"takes \(frames, 3, 16, 16\) uint8"):
        Pixels(16, 8).encode(images)


def test_fingerprint_tells_patchings_apart() -> None:
    names = {Pixels(*sizes).fingerprint() for sizes in ((64, 16), (64, 8), (32, 16), (64, 16))}
    assert len(names) == 3

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lit_mm.mistake import Mistake
from lit_mm.vision import Dual, Pixels, Rae, VisualTokenizer


class Counting(Pixels):
    """Pixels that remember which pictures they were given."""

    def __init__(self, image_size: int, patch_size: int) -> None:
        super().__init__(image_size, patch_size)
        self.given: list[torch.Tensor] = []

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        self.given.append(images)
        return super().encode(images)


@pytest.fixture
def rae(folder: Path) -> Rae:
    return Rae(folder=str(folder))


def test_reads_with_one_and_draws_with_the_other(rae: Rae, images: torch.Tensor) -> None:
    pixels = Pixels(32, 8)
    dual = Dual(read=rae, draw=pixels)
    assert (dual.image_size, dual.num_tokens, dual.channels, dual.read_channels) == (32, 16, 192, 64)
    assert torch.equal(dual.read(images), rae.encode(images))
    assert torch.equal(dual.encode(images), pixels.encode(images))
    assert torch.equal(dual.decode(dual.encode(images)), images)


def test_a_dual_inside_is_taken_for_the_half_that_is_needed(rae: Rae, images: torch.Tensor) -> None:
    inner = Dual(read=rae, draw=Pixels(32, 8))
    assert torch.equal(Dual(read=inner, draw=Pixels(32, 8)).read(images), rae.encode(images))
    assert torch.equal(Dual(read=Pixels(32, 8), draw=inner).decode(inner.encode(images)), images)


@pytest.mark.parametrize(
    ("read", "draw", "words"),
    [
        ((32, 8), (64, 16), "pixels:32/8.*32 pixels.*pixels:64/16.*64"),
        ((32, 8), (32, 4), "pixels:32/8.*16 tokens.*pixels:32/4.*64"),
    ],
)
def test_tokenizers_of_other_pictures_or_tokens_are_refused(
    read: tuple[int, int], draw: tuple[int, int], words: str
) -> None:
    with pytest.raises(Mistake, match=rf"vision.read \({words}"):
        Dual(Pixels(*read), Pixels(*draw))


def test_fingerprint_names_both(rae: Rae) -> None:
    pixels = Pixels(32, 8)
    name = Dual(rae, pixels).fingerprint()
    assert rae.fingerprint() in name
    assert pixels.fingerprint() in name
    assert name != Dual(pixels, rae).fingerprint()


@pytest.mark.parametrize("drawn", [[], [1, 3], [0, 1, 2, 3]], ids=["none drawn", "some drawn", "all drawn"])
def test_each_frame_is_encoded_only_as_it_is_needed(drawn: list[int], images: torch.Tensor) -> None:
    reader, drawer = Counting(32, 8), Counting(32, 8)
    read_too = [f for f in range(4) if f not in drawn]
    to_draw, to_read = Dual(reader, drawer).encode_frames(images, torch.tensor(drawn, dtype=torch.int64))
    assert torch.equal(torch.cat([images[:0], *drawer.given]), images[drawn])
    assert torch.equal(torch.cat([images[:0], *reader.given]), images[read_too])
    assert to_read is not None
    tokens = Pixels(32, 8).encode(images)
    for f in range(4):
        assert torch.equal(to_draw[f], tokens[f] if f in drawn else torch.zeros(16, 192))
        assert torch.equal(to_read[f], torch.zeros(16, 192) if f in drawn else tokens[f])


def test_tokens_are_float32_whatever_the_default_is(images: torch.Tensor) -> None:
    """Lightning changes the default within a run of precision bf16-true."""
    dual, drawn = Dual(Pixels(32, 8), Pixels(32, 8)), torch.tensor([1])
    wanted = dual.encode_frames(images, drawn)
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = dual.encode_frames(images, drawn)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_one_tokenizer_reads_what_it_draws(rae: Rae, images: torch.Tensor) -> None:
    for single in (rae, Pixels(32, 8)):
        assert isinstance(single, VisualTokenizer)
        assert single.read_channels is None
        assert torch.equal(single.read(images), single.encode(images))
        latents, read = single.encode_frames(images, torch.tensor([2]))
        assert torch.equal(latents, single.encode(images))
        assert read is None


def test_a_batch_without_frames_has_no_tokens(rae: Rae, images: torch.Tensor) -> None:
    nowhere = torch.zeros(0, dtype=torch.int64)
    latents, read = Dual(rae, Pixels(32, 8)).encode_frames(images[:0], nowhere)
    assert latents.shape == (0, 16, 192)
    assert read is not None
    assert read.shape == (0, 16, 64)

"""Pictures of every mode come out as the colours a viewer shows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_modules.dataset import BrokenFile
from data_modules.pictures import read_picture

SIZE = 16


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def gradient(height: int = SIZE, width: int = SIZE) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 127 // (width + height)], -1).astype(np.uint8)


def test_rgb_of_the_right_size_is_kept_bit_by_bit(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png", SIZE)
    assert picture.dtype == torch.uint8
    assert np.array_equal(picture.permute(1, 2, 0).numpy(), gradient())


def test_grey_and_bilevel() -> None:
    grey = gradient()[..., 0]
    assert np.array_equal(read_picture(encoded(Image.fromarray(grey)), SIZE).numpy(), np.stack([grey] * 3))
    black_white = Image.fromarray(grey > 100)
    assert np.array_equal(read_picture(encoded(black_white), SIZE).numpy()[1], (grey > 100) * 255)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint16)
    picture = read_picture(encoded(Image.fromarray(values)), SIZE).numpy()
    assert np.abs(picture[0].astype(int) - values / 257).max() <= 0.5


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_over_white(mode: str) -> None:
    rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
    rgba[:, : SIZE // 2] = (40, 40, 40, 255)
    rgba[:, SIZE // 2 :] = (0, 0, 0, 0)
    image = Image.fromarray(rgba)
    if mode == "LA":
        image = image.convert("LA")
    if mode == "P":
        indexed = Image.fromarray((rgba[..., 3] == 0).astype(np.uint8))
        indexed.putpalette([40, 40, 40, 0, 0, 0])
        content = encoded(indexed, transparency=1)
    else:
        content = encoded(image)
    picture = read_picture(content, SIZE)
    assert (picture[:, :, : SIZE // 2] == 40).all()
    assert (picture[:, :, SIZE // 2 :] == 255).all()


def test_half_transparent_red_over_white_is_pink() -> None:
    image = Image.new("RGBA", (SIZE, SIZE), (255, 0, 0, 128))
    assert read_picture(encoded(image), SIZE)[:, 3, 3].tolist() == [255, 127, 127]


def test_palette() -> None:
    image = Image.fromarray(gradient()).quantize(16)
    expected = np.array(image.getpalette()).reshape(-1, 3)[np.asarray(image)]
    assert np.array_equal(read_picture(encoded(image), SIZE).permute(1, 2, 0).numpy(), expected)


def test_camera_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture has to be turned a quarter clockwise
    content = encoded(Image.fromarray(gradient()), exif=exif)
    assert np.array_equal(read_picture(content, SIZE).permute(1, 2, 0).numpy(), np.rot90(gradient(), -1))


@pytest.mark.parametrize(("height", "width"), [(32, 96), (96, 32), (7, 5), (300, 200)])
def test_the_centre_is_cut_from_any_size(height: int, width: int) -> None:
    """Red, green and blue thirds along the long side: the middle one stays."""
    array = np.zeros((height, width, 3), np.uint8)
    for i, part in enumerate(np.array_split(np.arange(max(height, width)), 3)):
        array[(slice(None), part, i) if width > height else (part, slice(None), i)] = 255
    picture = read_picture(encoded(Image.fromarray(array)), SIZE)
    assert picture.shape == (3, SIZE, SIZE)
    assert picture[:, SIZE // 2, SIZE // 2].tolist() == [0, 255, 0]


def test_large_jpeg_is_close_to_the_full_decode() -> None:
    array = np.array(Image.fromarray(gradient(64, 64)).resize((1024, 1024), Image.Resampling.BICUBIC))
    content = encoded(Image.fromarray(array), "JPEG", quality=95)
    full = np.array(Image.open(io.BytesIO(content)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(read_picture(content, SIZE).permute(1, 2, 0).numpy() - full).max() <= 6


def test_cmyk_jpeg_is_red() -> None:
    red = read_picture(encoded(Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0)), "JPEG", quality=100), SIZE)
    assert red[0].min() > 230
    assert red[1:].max() < 30


@pytest.mark.parametrize("content", [b"", b"not a picture", encoded(Image.fromarray(gradient(64, 64)))[:-900]])
def test_broken_picture_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(BrokenFile) as caught:
        read_picture(tmp_path / "broken.png", SIZE)
    assert caught.value.path == str(tmp_path / "broken.png")
    with pytest.raises(BrokenFile, match=r"x.tar:3"):
        read_picture(content, SIZE, name="x.tar:3")

"""Pictures of every mode come out as the colours a viewer shows."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torchvision.io import ImageReadMode, decode_jpeg, decode_png

from data_modules.dataset import BrokenFile, RefusedFile
from data_modules.reading.cropping import Cut, RandomCut, Squash
from data_modules.reading.pictures import MOST_TEXT, read_picture, read_up_to

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


@pytest.mark.parametrize("cut", [None, Squash(), RandomCut(SIZE, (0,))], ids=["centre", "squash", "random"])
def test_small_ones_hold_the_light_of_all_pixels(cut: Cut | None) -> None:
    """A board of single pixels, black and white in turns, is grey from afar; one pixel in eight is one of them."""
    y, x = np.mgrid[: 8 * SIZE, : 8 * SIZE]
    board = np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, -1)
    small = read_picture(encoded(Image.fromarray(board)), SIZE, cut=cut).numpy().astype(int)
    assert np.abs(small - 127.5).max() < 8


def test_grey_and_bilevel() -> None:
    grey = gradient()[..., 0]
    assert np.array_equal(read_picture(encoded(Image.fromarray(grey)), SIZE).numpy(), np.stack([grey] * 3))
    black_white = Image.fromarray(grey > 100)
    assert np.array_equal(read_picture(encoded(black_white), SIZE).numpy()[1], (grey > 100) * 255)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def sixteen_bit_png(values: np.ndarray, *more: bytes) -> bytes:
    """A PNG by the letter of its specification (PIL writes no 16-bit colours): (height, width, 1 to 4) uint16."""
    height, width, channels = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def over_white(values: np.ndarray, most: int) -> np.ndarray:
    """(height, width, 1 to 4) grey or colour with or without opacity, up to `most`, to (height, width, 3) up to 255."""
    values = values.astype(np.float64) / most
    colours = values[..., :3] if values.shape[-1] > 2 else values[..., :1].repeat(3, -1)
    opacity = values[..., -1:] if values.shape[-1] in (2, 4) else 1.0
    return 255 * (colours * opacity + 1 - opacity)


def noise(channels: int, most: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most + 1, (SIZE, SIZE, channels))


def read(content: bytes) -> np.ndarray:
    """(height, width, 3)."""
    return read_picture(content, SIZE).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("channels", "tolerance"), [(1, 0.5), (2, 2.0), (3, 1.0), (4, 2.0)])
def test_sixteen_bits_are_scaled_not_clipped(channels: int, tolerance: float) -> None:
    """Grey is exact to rounding; of the others PIL drops the lower byte: less than 1 in the colour, 1 in the opacity."""
    values = noise(channels, 65535)
    assert np.abs(read(sixteen_bit_png(values)) - over_white(values, 65535)).max() <= tolerance


def test_sixteen_bits_as_another_decoder_reads_them() -> None:
    content = sixteen_bit_png(noise(3, 65535))
    decoded = decode_png(torch.frombuffer(bytearray(content), dtype=torch.uint8)).permute(1, 2, 0).numpy()
    assert decoded.dtype == np.uint16
    assert np.abs(read(content) - decoded / 257).max() <= 1.0


def test_sixteen_bit_tiff_of_either_byte_order() -> None:
    values = noise(1, 65535)[..., 0]
    for order in "<>":
        content = encoded(Image.fromarray(values.astype(f"{order}u2")), "TIFF")
        assert np.abs(read(content)[..., 1] - values / 257).max() <= 0.5


def test_the_transparent_grey_of_a_sixteen_bit_png_is_white() -> None:
    values = noise(1, 65535)
    values[:4] = 4660
    expected = over_white(values, 65535)
    expected[:4] = 255
    content = sixteen_bit_png(values, chunk(b"tRNS", struct.pack(">H", 4660)))
    assert np.abs(read(content) - expected).max() <= 0.5


@pytest.mark.parametrize("values", [np.full((SIZE, SIZE), 0.5, np.float32), np.full((SIZE, SIZE), 70000, np.int32)])
def test_pixels_of_unknown_range_are_refused(values: np.ndarray) -> None:
    with pytest.raises(BrokenFile, match=r"^'scan.tif' broke .* save it with 8 or 16 bits$"):
        read_picture(encoded(Image.fromarray(values), "TIFF"), SIZE, name="scan.tif")


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_every_mode_in_every_lossless_format(mode: str, format: str) -> None:
    channels = len(mode)
    values = noise(channels, 255)
    image = Image.fromarray((values[..., 0] if mode == "L" else values).astype(np.uint8), mode)
    # WebP has no grey: PIL stores it as colours. `exact` keeps the colours of what is wholly transparent.
    content = encoded(image, format, lossless=True, exact=True)
    assert np.abs(read(content) - over_white(values, 255)).max() <= 0.5


def test_partly_transparent_palette() -> None:
    """Each of 256 colours has an opacity of its own, as in PNGs made small for the web."""
    colours, opacity = noise(3, 255).reshape(256, 3), np.arange(256)
    indexed = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(SIZE, SIZE))
    indexed.putpalette(colours.flatten().tolist())
    content = encoded(indexed, transparency=bytes(opacity.tolist()))
    expected = over_white(np.concatenate([colours, opacity[:, None]], 1).reshape(SIZE, SIZE, 4), 255)
    assert np.abs(read(content) - expected).max() <= 0.5


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_one_transparent_colour_of_a_palette(format: str) -> None:
    index = np.arange(256, dtype=np.uint8).reshape(SIZE, SIZE)
    colours = noise(3, 254).reshape(256, 3)
    indexed = Image.fromarray(index)
    indexed.putpalette(colours.flatten().tolist())
    expected = colours[index]
    expected[index == 7] = 255
    assert np.array_equal(read(encoded(indexed, format, transparency=7)), expected)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_one_transparent_colour(mode: str) -> None:
    values = noise(len(mode), 254).astype(np.uint8)
    values[:4] = 77
    image = Image.fromarray(values[..., 0] if mode == "L" else values)
    expected = over_white(values, 255)
    expected[:4] = 255
    content = encoded(image, transparency=77 if mode == "L" else (77, 77, 77))
    assert np.array_equal(read(content), expected.round())


def test_half_transparent_red_over_white_is_pink() -> None:
    image = Image.new("RGBA", (SIZE, SIZE), (255, 0, 0, 128))
    assert read_picture(encoded(image), SIZE)[:, 3, 3].tolist() == [255, 127, 127]


def test_palette() -> None:
    image = Image.fromarray(gradient()).quantize(16)
    expected = np.array(image.getpalette()).reshape(-1, 3)[np.asarray(image)]
    assert np.array_equal(read_picture(encoded(image), SIZE).permute(1, 2, 0).numpy(), expected)


# What has to be done to stored rows to see the picture upright (EXIF 2.3, tag 0x0112, "0th row, 0th column" table).
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda p: p,  # top, left
    2: lambda p: p[:, ::-1],  # top, right
    3: lambda p: p[::-1, ::-1],  # bottom, right
    4: lambda p: p[::-1],  # bottom, left
    5: lambda p: p.swapaxes(0, 1),  # left, top
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],  # right, top
    7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
    8: lambda p: p.swapaxes(0, 1)[::-1],  # left, bottom
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_camera_orientation_is_applied(orientation: int, format: str) -> None:
    """Of a stored picture wider than high, the middle of the upright one is kept."""
    stored = noise(3, 255).astype(np.uint8)
    stored = np.concatenate([np.zeros((SIZE, 4, 3), np.uint8), stored, np.full((SIZE, 4, 3), 255, np.uint8)], axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(stored), format, exif=exif, lossless=True)
    upright = UPRIGHT[orientation](stored)
    top, left = (upright.shape[0] - SIZE) // 2, (upright.shape[1] - SIZE) // 2
    assert np.array_equal(read(content), upright[top : top + SIZE, left : left + SIZE])


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_camera_orientation_of_a_jpeg_as_another_decoder_applies_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(gradient()), "JPEG", quality=95, exif=exif)
    data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    decoded = decode_jpeg(data, apply_exif_orientation=True)
    assert (read_picture(content, SIZE).int() - decoded.int()).abs().max() <= 2


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


def test_cmyk_is_ink_on_white_paper() -> None:
    inks = noise(4, 255)
    paper = 255 - inks.astype(np.float64)
    expected = paper[..., :3] * paper[..., 3:] / 255
    assert np.abs(read(encoded(Image.fromarray(inks.astype(np.uint8), "CMYK"), "TIFF")) - expected).max() <= 0.5


def test_cmyk_jpeg_as_another_decoder_reads_it() -> None:
    """Such JPEGs are stored inverted, and who forgets it sees a negative."""
    inks = np.zeros((SIZE, SIZE, 4), np.uint8)
    inks[..., 0], inks[: SIZE // 2, :, 3], inks[:, : SIZE // 2, 1] = 200, 90, 255
    content = encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)
    decoded = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    assert (read_picture(content, SIZE).int() - decoded.int()).abs().max() <= 2


def test_grey_jpeg_as_another_decoder_reads_it() -> None:
    content = encoded(Image.fromarray(gradient()[..., 0]), "JPEG", quality=95)
    decoded = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    assert (read_picture(content, SIZE).int() - decoded.int()).abs().max() <= 1


@pytest.mark.parametrize("content", [b"", b"not a picture", encoded(Image.fromarray(gradient(64, 64)))[:-900]])
def test_broken_picture_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(BrokenFile) as caught:
        read_picture(tmp_path / "broken.png", SIZE)
    assert caught.value.path == str(tmp_path / "broken.png")
    with pytest.raises(BrokenFile, match=r"x.tar:3"):
        read_picture(content, SIZE, name="x.tar:3")


def memory(name: str) -> int:
    """Bytes that this process holds (VmRSS), or the most it has held (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell the most it held")
@pytest.mark.parametrize(("mode", "bytes_of_a_pixel"), [("RGB", 4), ("RGBA", 8), ("I;16", 8)])
def test_large_pictures_take_no_more_memory_than_is_said(mode: str, bytes_of_a_pixel: int) -> None:
    side = 5000
    content = encoded(Image.new(mode, (side, side)), "PNG")
    Path("/proc/self/clear_refs").write_text("5")  # forget the most so far
    before = memory("VmRSS")
    read_picture(content, 32)
    assert memory("VmHWM") - before < 1.3 * bytes_of_a_pixel * side**2


def test_larger_pictures_than_is_said_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    content = encoded(Image.new("RGB", (1000, 1001)), "PNG")
    read_up_to(1.1)
    read_picture(content, 32)
    read_up_to(1.0)
    with pytest.raises(BrokenFile, match=r"more than 1 million pixels \(data.loader.max_megapixels\); scale it down"):
        read_picture(content, 32)


def test_texts_and_profiles_of_a_png_are_no_reason_to_refuse_its_pixels() -> None:
    """Generators of pictures write their whole workflow into them."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * 1_500_000, zip=True)
    texts.add_itxt("prompt", "y" * 1_500_000, zip=True)
    content = encoded(Image.fromarray(gradient()), pnginfo=texts, icc_profile=b"\0" * 1_500_000)
    assert np.array_equal(read(content), gradient())


def test_nor_are_damaged_notes_of_the_camera() -> None:
    image = Image.fromarray(gradient())
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0\0"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert np.array_equal(read(encoded(image, exif=exif)), gradient())


def test_more_text_than_is_stated_is_refused_by_name(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("a", " " * (MOST_TEXT + 1), zip=True)
    (tmp_path / "a.png").write_bytes(encoded(Image.new("RGB", (8, 8)), pnginfo=texts))
    with pytest.raises(RefusedFile, match=r"a.png' is not read: its texts or colour profile take more than 64 MiB"):
        read_picture(tmp_path / "a.png", SIZE)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_large_jpeg_is_counted_as_it_is_decoded(as_bytes: bool, tmp_path: Path) -> None:
    """At an eighth of its sides: large is not hostile. Progressive ones take the memory of all their pixels."""
    large = Image.new("L", (4000, 2000), 77)
    files = {}
    for name, options in {"plain": {}, "progressive": {"progressive": True}}.items():
        content = encoded(large, "JPEG", **options)
        (tmp_path / name).write_bytes(content)
        files[name] = content if as_bytes else tmp_path / name
    read_up_to(1.0)
    try:
        assert (read_picture(files["plain"], SIZE) == 77).all()
        with pytest.raises(RefusedFile, match="it has more than 1 million pixels"):
            read_picture(files["progressive"], SIZE)
    finally:
        read_up_to(179)
    assert (read_picture(files["plain"], SIZE, megapixels=1.0) == 77).all()
    with pytest.raises(RefusedFile, match="it has more than 1 million pixels; scale it down"):
        read_picture(files["progressive"], SIZE, megapixels=1.0)


def test_a_picture_of_floating_point_numbers_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "depth.tiff")
    with pytest.raises(BrokenFile, match=r"depth.tiff' broke while being read: its pixels are floating-point numbers"):
        read_picture(tmp_path / "depth.tiff", SIZE)

"""Pictures of any size, mode and orientation to square uint8 RGB."""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from data_modules.dataset import BrokenFile, RefusedFile
from data_modules.reading.cropping import Cut, planes
from lit_mm.mistake import MissingFile, Mistake, misnamed
from lit_mm.packaged import packaged

STRIP = 2**20  # pixels that are converted at once
MOST_TEXT = 64 << 20  # bytes of the texts inside a PNG; generators of pictures write their whole workflow
ORIENTATION = 0x0112  # of EXIF
_TURNS = dict(enumerate(map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2)), start=2))

PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MOST_TEXT  # PIL refuses 1 MiB

Picture = str | Path | Image.Image | Tensor | np.ndarray  # one, see `as_picture`


def is_picture(value: Any) -> bool:
    """Whether a value is one picture, and not a list of them."""
    return isinstance(value, str | Path | Image.Image) or (
        isinstance(value, Tensor | np.ndarray) and value.ndim in (2, 3)
    )


def as_picture(value: Picture, size: int, cut: Cut | None = None) -> Tensor:
    """Any picture as (3, size, size) uint8 RGB: a path or a PIL image as by `read_picture`, or pixels.

    Args:
        value: a path, which may be that of a file of the package; a PIL image; a tensor (channels, height, width)
            uint8 or an array (height, width, channels) uint8 with 3 channels, 4 (the last one is opacity), 1, or
            without that dimension.
        size: side of the result in pixels.
        cut: how the square is cut out; the centre by default.

    Raises:
        Mistake: it is none of these, or a file that cannot be read.
    """
    if isinstance(value, str | Path):
        path = Path(packaged(str(value), Path()))
        if not path.is_file():
            raise MissingFile(f"there is no file '{value}'; give the path of a picture")
        return read_picture(path, size, cut=cut)
    if isinstance(value, Image.Image):
        return Square(size, cut)(to_rgb(ImageOps.exif_transpose(value)))
    pixels = value.cpu().permute(1, 2, 0).numpy() if isinstance(value, Tensor) and value.ndim == 3 else value
    pixels = pixels.numpy(force=True) if isinstance(pixels, Tensor) else pixels
    if isinstance(pixels, np.ndarray) and pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or not _has_colours(pixels) or not pixels.size:
        found = (
            f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor | np.ndarray) else type(value).__name__
        )
        raise Mistake(
            f"a picture is {found}; give a path, a PIL image, a uint8 tensor (3, height, width) or a uint8 array "
            "(height, width, 3)"
        )
    return Square(size, cut)(pixels if pixels.shape[2:] == (3,) else to_rgb(Image.fromarray(pixels)))


def _has_colours(pixels: np.ndarray) -> bool:
    return pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))


def read_picture(
    file: str | Path | bytes, size: int, name: object = None, cut: Cut | None = None, megapixels: float | None = None
) -> Tensor:
    """Decode a picture file to (3, size, size) uint8 RGB.

    It takes about 4 bytes of memory a pixel, 8 with transparent parts or 16 bits, and of large JPEGs a small part of
    that. The camera's orientation (EXIF) is applied, transparency is laid over white, 16 bits are scaled to 8; then the
    short side is resized to `size` and the centre is cut out, or what `cut` says.

    Args:
        file: a path, or the file's bytes.
        size: side of the result in pixels.
        name: what to call it in an error, the path by default.
        cut: how the square is cut out; the centre by default.
        megapixels: most that are decoded; what `read_up_to` says by default.

    Raises:
        BrokenFile: it is missing, cut, not a picture or too large.
    """
    try:
        side = 2 * (cut.resized(size) if cut else size)
        with _opened(io.BytesIO(file) if isinstance(file, bytes) else file, side, megapixels) as image:
            upright = to_rgb(_upright(image))
            return Square(size, cut)(upright)
    except Mistake as error:
        raise BrokenFile(name or file, error) from error
    except Image.DecompressionBombError as error:
        most = megapixels or 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6  # PIL warns of half of it
        reason = f"it has more than {most:g} million pixels"
        reason += "; scale it down" if megapixels else " (data.loader.max_megapixels); scale it down, or raise that"
        raise RefusedFile(name or file, reason) from error
    except ValueError as error:
        if wrong_name := misnamed(error):  # others of the kind cannot be read either
            raise Mistake(wrong_name) from error
        if "MAX_TEXT" not in str(error):
            raise BrokenFile(name or file, f"ValueError: {error}") from error
        reason = f"its texts or colour profile take more than {MOST_TEXT >> 20} MiB; save it without them"
        raise RefusedFile(name or file, reason) from error
    except UnidentifiedImageError as error:
        raise BrokenFile(name or file, "it is no picture, or cut short") from error
    except Exception as error:  # PIL's readers raise nearly anything on a broken file
        raise BrokenFile(name or file, f"{type(error).__name__}: {error}") from error


def _opened(file: Any, side: int, megapixels: float | None) -> Image.Image:
    """A picture whose header was read. Large JPEGs will be decoded at 1/2, 1/4 or 1/8, both sides above `side`.

    Raises:
        Image.DecompressionBombError: more would be decoded than `megapixels`, or than `read_up_to` allows.
    """
    most = 2 * (Image.MAX_IMAGE_PIXELS or math.inf) if megapixels is None else 1e6 * megapixels
    try:
        image: Image.Image = Image.open(file)
    except Image.DecompressionBombError:  # of a JPEG that is decoded in small, that does not count
        image = _large_jpeg(file)
    whole = image.width * image.height
    image.draft(None, (side, side))
    # A progressive JPEG takes the memory of all its pixels.
    if (whole if "progressive" in image.info else image.width * image.height) > most:
        raise Image.DecompressionBombError
    return image


def _large_jpeg(file: Any) -> Image.Image:
    """A JPEG of any size.

    Raises:
        Image.DecompressionBombError: it is none.
    """
    if isinstance(file, io.BytesIO):
        file.seek(0)
    try:
        return JpegImageFile(file)
    except SyntaxError as error:
        raise Image.DecompressionBombError from error


def _upright(image: Image.Image) -> Image.Image:
    """Turned as the camera was (EXIF). Where its notes are damaged the picture stays as it is."""
    image.load()  # which turns a TIFF
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # PIL raises nearly anything
        return image
    turn = _TURNS.get(orientation)  # type: ignore[arg-type]
    return image if turn is None else image.transpose(turn)


def read_up_to(megapixels: float) -> None:
    """Refuse pictures of more pixels from here on, in this process and those that it starts by fork."""
    Image.MAX_IMAGE_PIXELS = int(megapixels * 1e6 / 2)  # PIL refuses twice as many, and would warn of so many
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of a picture in any mode; transparent parts become white.

    16-bit grey is rounded to 8 bits; 16-bit colours have lost their lower half in PIL's reader (less than two levels).

    Raises:
        Mistake: its values have no known range (floating-point or 32-bit TIFF).
    """
    if image.mode.startswith("I"):
        image = _from_16_bit(image)
    if image.mode == "F":
        raise Mistake("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """Strip by strip, as all of it at once takes three times the memory."""
    whole = Image.new("RGB", image.size)
    lines = max(1, STRIP // image.width)
    for top in range(0, image.height, lines):
        strip = image.crop((0, top, image.width, min(image.height, top + lines)))
        strip.info = image.info
        rgba = strip.convert("RGBA")
        whole.paste(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"), (0, top))
    return whole


def _from_16_bit(image: Image.Image) -> Image.Image:
    """8-bit grey of 16-bit grey (PIL's own conversion clips it instead of scaling); its transparent value is white."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise Mistake(f"its pixels go from {low} to {high}; save it with 8 or 16 bits")
    transparent = image.info.get("transparency")
    grey = np.empty(values.shape, np.uint8)
    lines = max(1, STRIP // image.width)
    for top in range(0, image.height, lines):
        part = values[top : top + lines]
        scaled = (part / 257).round().astype(np.uint8)
        grey[top : top + lines] = scaled if transparent is None else np.where(part == transparent, 255, scaled)
    return Image.fromarray(grey)


def square(image: Image.Image | np.ndarray, size: int) -> Tensor:
    """Resize the short side of an RGB picture to `size`, cut out the centre: (3, size, size) uint8.

    Resizing is bicubic and antialiased. A picture that is already `size` x `size` is kept bit by bit.
    """
    if isinstance(image, np.ndarray):
        if image.shape[:2] == (size, size):
            return torch.from_numpy(image.transpose(2, 0, 1).copy())
        image = Image.fromarray(image)
    return planes(image if image.size == (size, size) else ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Square:
    """The squares that pictures become.

    Args:
        size: side in pixels.
        cut: how they are cut out; the centre by default.
    """

    size: int
    cut: Cut | None = None

    def __call__(self, picture: Image.Image | np.ndarray) -> Tensor:
        """An RGB picture, or (height, width, 3) uint8, to (3, size, size) uint8."""
        if self.cut is None:
            return square(picture, self.size)
        return self.cut(Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture, self.size)

    def read(self, file: str | bytes, name: object = None) -> Tensor:
        """See `read_picture`."""
        return read_picture(file, self.size, name, self.cut)

"""What the model asks of a visual tokenizer, whichever it is."""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from lit_mm.vision.contract import check_fingerprint, check_result


class VisualTokenizer(nn.Module, ABC):
    """Pictures to visual tokens and back. The model that it is given to freezes it, see `lit_mm.frozen`.

    `encode`, `decode` and `read` are called with the shapes and types that they name here, without gradients; numbers
    that they return in another precision are made float32, another shape or type is a `Mistake`.

    Attributes:
        image_size: side of the square pictures it takes, in pixels.
        num_tokens: tokens of one picture.
        channels: channels of one token; for the noise shift and the width of the model, of a token that is drawn.
        read_channels: channels of a token that is only read; None where a picture is read by the tokens it is drawn by.
        compute_dtype: what `encode`, `decode` and `read` compute in, by autocast, wherever they are called; float32
            from the first call on that fails in another.
    """

    image_size: int
    num_tokens: int
    channels: int
    read_channels: int | None = None
    compute_dtype: torch.dtype = torch.float32

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("encode", "decode", "read"):
            if name in vars(cls):
                setattr(cls, name, _frozen(vars(cls)[name]))
        if "fingerprint" in vars(cls):
            cls.fingerprint = _checked_fingerprint(vars(cls)["fingerprint"])  # type: ignore[assignment, method-assign]

    def compute_in(self, dtype: torch.dtype) -> None:
        """Set `compute_dtype`, also of tokenizers that this one is made of."""
        for module in self.modules():
            if isinstance(module, VisualTokenizer):
                module.compute_dtype = dtype

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """(F, 3, image_size, image_size) uint8 to (F, num_tokens, channels) float32 of about unit variance."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """(F, num_tokens, channels) to (F, 3, image_size, image_size) uint8."""

    def read(self, images: Tensor) -> Tensor:
        """Tokens of clean frames, which the model only reads.

        (F, 3, image_size, image_size) uint8 to (F, num_tokens, read_channels or channels) float32 of about unit
        variance.
        """
        return self.encode(images)

    def encode_frames(self, images: Tensor, drawn_frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens of a batch's frames, each frame encoded only as it is needed.

        Args:
            images: (F, 3, image_size, image_size) uint8.
            drawn_frames: (F',) int64, indices of those that are drawn; all others are read.

        Returns:
            Tokens to draw (F, num_tokens, channels); and tokens to read (F, num_tokens, read_channels), or None where
            they are the same. With `read_channels`, a frame is zero in the one that it is not needed in.
        """
        if self.read_channels is None:
            return self.encode(images), None
        drawn = torch.zeros(len(images), dtype=torch.int32, device=images.device).index_fill(0, drawn_frames, 1)
        # The others in order: sorted, not counted, since counting on a GPU would stall every step.
        read_frames = drawn.argsort(stable=True)[: len(images) - len(drawn_frames)]
        # Named float32, whatever the default is.
        to_draw = images.new_zeros(len(images), self.num_tokens, self.channels, dtype=torch.float32)
        to_read = images.new_zeros(len(images), self.num_tokens, self.read_channels, dtype=torch.float32)
        if len(drawn_frames):
            to_draw.index_copy_(0, drawn_frames, self.encode(images[drawn_frames]))
        if len(read_frames):
            to_read.index_copy_(0, read_frames, self.read(images[read_frames]))
        return to_draw, to_read

    @abstractmethod
    def fingerprint(self) -> str:
        """Name and hash of all that latents depend on: equal fingerprints, equal latents for equal pictures."""

    def check_images(self, images: Tensor) -> None:
        """Refuse what `encode` cannot take.

        Raises:
            ValueError: `images` is not (F, 3, image_size, image_size) uint8.
        """
        size = self.image_size
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(
                f"pictures of shape {tuple(images.shape)} and type {images.dtype} were given to a visual tokenizer "
                f"that takes (frames, 3, {size}, {size}) uint8"
            )


def _frozen(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A method that computes in the tokenizer's dtype, without gradients, and takes and returns uint8 or float32."""

    @wraps(method)
    def computed(self: VisualTokenizer, tensor: Tensor) -> Tensor:
        tensor = _uint8_or_float32(tensor)
        with torch.no_grad():
            try:
                with _autocast(tensor, self.compute_dtype):
                    found = method(self, tensor)
            except RuntimeError as error:  # perhaps since autocast has made two dtypes of one
                if self.compute_dtype == torch.float32:
                    raise
                failed, self.compute_dtype = self.compute_dtype, torch.float32
                with _autocast(tensor, torch.float32):
                    found = method(self, tensor)
                _say_float32(self, failed, error)
            if getattr(type(self), method.__name__) is computed:  # not what `super()` gives it to work with
                check_result(self, method.__name__, found, tensor)
            found = _uint8_or_float32(found)
        # What was made in inference mode could not be kept for a backward pass.
        return found.clone() if found.is_inference() and not torch.is_inference_mode_enabled() else found

    return computed


def _checked_fingerprint(method: Callable[[VisualTokenizer], str]) -> Callable[[VisualTokenizer], str]:
    @wraps(method)
    def checked(self: VisualTokenizer) -> str:
        return check_fingerprint(self, method(self))

    return checked


def _autocast(tensor: Tensor, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(tensor.device.type, dtype, enabled=dtype != torch.float32)


def _say_float32(tokenizer: VisualTokenizer, failed: torch.dtype, error: RuntimeError) -> None:
    warnings.warn(
        f"the visual tokenizer {type(tokenizer).__name__} computes in float32 from here on, since it fails in "
        f"{str(failed).removeprefix('torch.')} ({str(error).strip().splitlines()[0]})",
        stacklevel=3,
    )


def _uint8_or_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def hash_of(module: nn.Module, settings: str = "") -> str:
    """First 16 hex digits of a SHA-256 over names, shapes and float32 values of a module's tensors, and `settings`."""
    digest = hashlib.sha256(settings.encode())
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(values.shape)}".encode())
        digest.update(values.flatten().numpy())
    return digest.hexdigest()[:16]

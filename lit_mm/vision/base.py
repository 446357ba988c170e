"""What the model asks of a visual tokenizer, whichever it is."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import Self


class VisualTokenizer(nn.Module, ABC):
    """Pictures to visual tokens and back. Frozen: it is never trained with the model that uses it.

    Attributes:
        image_size: side of the square pictures it takes, in pixels.
        num_tokens: tokens of one picture.
        channels: channels of one token; for the noise shift and the width of the model, of a token that is drawn.
        read_channels: channels of a token that is only read; None where a picture is read by the tokens it is drawn by.
        compute_dtype: what `encode`, `decode` and `read` compute in, by autocast, wherever they are called.
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
                setattr(cls, name, _in_compute_dtype(vars(cls)[name]))

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

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode: it is frozen."""
        return super().train(False)

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


def _in_compute_dtype(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(method)
    def computed(self: VisualTokenizer, tensor: Tensor) -> Tensor:
        dtype = self.compute_dtype
        with torch.autocast(tensor.device.type, dtype, enabled=dtype != torch.float32):
            return method(self, tensor)

    return computed


def hash_of(module: nn.Module, settings: str = "") -> str:
    """First 16 hex digits of a SHA-256 over names, shapes and float32 values of a module's tensors, and `settings`."""
    digest = hashlib.sha256(settings.encode())
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]

"""Two tokenizers, one to read and one to draw: a baseline of the paper (§6.3)."""

from __future__ import annotations

from torch import Tensor

from lit_mm.mistake import Mistake
from lit_mm.vision.base import VisualTokenizer


class Dual(VisualTokenizer):
    """Clean frames are read through one tokenizer, noised frames are drawn in the space of another.

    The arrangement of Janus (arXiv 2410.13848) and BAGEL (arXiv 2505.14683): a semantic encoder for understanding, a
    reconstructing one for generation. Each has an input projection of its own in the model; noise shift, width and
    loss are those of the space that is drawn in. What was drawn is read again as a picture.

    Args:
        read: encodes frames that the model only reads; it needs no decoder.
        draw: encodes frames that are noised, and decodes what was drawn.

    Raises:
        Mistake: they differ in the size of their pictures or in their number of tokens.
    """

    def __init__(self, read: VisualTokenizer, draw: VisualTokenizer) -> None:
        super().__init__()
        for name, what in (("image_size", "pixels a side"), ("num_tokens", "tokens a picture")):
            reading, drawing = getattr(read, name), getattr(draw, name)
            if reading != drawing:
                raise Mistake(
                    f"vision.read ({read.fingerprint()}) has {reading} {what} and vision.draw ({draw.fingerprint()}) "
                    f"has {drawing}, but the same frames are read and drawn: make them equal"
                )
        self.reader, self.drawer = read, draw
        self.image_size, self.num_tokens, self.channels = draw.image_size, draw.num_tokens, draw.channels
        self.read_channels = read.read_channels or read.channels

    def read(self, images: Tensor) -> Tensor:
        """(F, 3, image_size, image_size) uint8 to (F, num_tokens, read_channels), by the reading tokenizer."""
        return self.reader.read(images)

    def encode(self, images: Tensor) -> Tensor:
        """(F, 3, image_size, image_size) uint8 to (F, num_tokens, channels), by the drawing tokenizer."""
        return self.drawer.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        """(F, num_tokens, channels) to (F, 3, image_size, image_size) uint8, by the drawing tokenizer."""
        return self.drawer.decode(latents)

    def fingerprint(self) -> str:
        """Those of both."""
        return f"dual:{self.reader.fingerprint()}+{self.drawer.fingerprint()}"

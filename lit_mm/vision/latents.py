"""Latents made before training: how they are laid out, and what is checked of all latents, whenever they were made."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lit_mm.mistake import Mistake
from lit_mm.vision.base import VisualTokenizer

MOST_NAMED = 3  # pictures named in a message


class NonFiniteLatents(Mistake):
    """A visual tokenizer made NaN or infinity of a picture."""


def stored_channels(vision: VisualTokenizer) -> int:
    """Channels of a token of `encode_to_store`."""
    return vision.channels + (vision.read_channels or 0)


def encode_to_store(vision: VisualTokenizer, images: Tensor) -> Tensor:
    """All that training may need of pictures, whether they are drawn or read.

    Args:
        vision: the tokenizer.
        images: (F, 3, image_size, image_size) uint8.

    Returns:
        (F, num_tokens, stored_channels) float32: tokens to draw, and behind them, where they are of another kind, those
        to read.
    """
    if vision.read_channels is None:
        return vision.encode(images)
    return torch.cat([vision.encode(images), vision.read(images)], dim=-1)


def tokens_from_store(vision: VisualTokenizer, latents: Tensor) -> tuple[Tensor, Tensor | None]:
    """What `VisualTokenizer.encode_frames` gives, from what `encode_to_store` made, in float32.

    Raises:
        Mistake: the latents are not this tokenizer's.
    """
    if latents.shape[1:] != (vision.num_tokens, stored_channels(vision)):
        raise Mistake(
            f"latents of shape {tuple(latents.shape)} were given to the visual tokenizer '{vision.fingerprint()}', "
            f"whose own are (frames, {vision.num_tokens}, {stored_channels(vision)})"
        )
    latents = latents.float()
    if vision.read_channels is None:
        return latents, None
    drawn, read = latents.split([vision.channels, vision.read_channels], dim=-1)
    return drawn, read


class FiniteCheck:
    """Stops a run at latents that are not finite, naming their pictures.

    A GPU is not waited for: what is found there travels to the CPU while the step runs, and is looked at by the next
    call, or by `flush`.

    Args:
        tokenizer: fingerprint of the visual tokenizer, for the message.
    """

    def __init__(self, tokenizer: str) -> None:
        self.tokenizer = tokenizer
        self._pending: Callable[[], None] | None = None

    def __call__(self, latents: Sequence[Tensor | None], origins: Sequence[str], cached: bool = False) -> None:
        """Check the latents of some pictures, each (F, N, C).

        Args:
            latents: of one kind or several, all of the same pictures.
            origins: F strings, where the pictures are from.
            cached: whether they were read from a cache.

        Raises:
            NonFiniteLatents: there is NaN or infinity in these (on a CPU) or in the last ones (on a GPU).
        """
        self.flush()
        bad = torch.stack([~t.isfinite().flatten(1).all(1) for t in latents if t is not None]).any(0)
        if bad.device.type != "cuda":
            self._raise_if(bad, origins, cached)
            return
        on_cpu = torch.empty(bad.shape, dtype=torch.bool, pin_memory=True)
        on_cpu.copy_(bad, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def look() -> None:
            copied.synchronize()
            self._raise_if(on_cpu, origins, cached)

        self._pending = look

    def flush(self) -> None:
        """Look at what the last call found.

        Raises:
            NonFiniteLatents: there was NaN or infinity.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending()

    def _raise_if(self, bad: Tensor, origins: Sequence[str], cached: bool) -> None:
        places = bad.nonzero().flatten().tolist()
        if not places:
            return
        names = list(dict.fromkeys(f"'{origins[i]}'" if origins[i] else f"frame {i} of the batch" for i in places))
        named = ", ".join(names[:MOST_NAMED])
        more = f" and {len(names) - MOST_NAMED} more pictures" if len(names) > MOST_NAMED else ""
        advice = (
            "delete the cache's folder to have it made again"
            if cached
            else "repair the file or leave it out; if it looks right, the tokenizer's weights are damaged"
        )
        where = "the latent cache has NaN or infinity for" if cached else "there is NaN or infinity in the latents of"
        raise NonFiniteLatents(f"{where} {named}{more} (visual tokenizer '{self.tokenizer}'): {advice}")

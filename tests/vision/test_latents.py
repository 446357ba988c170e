"""How stored latents are laid out, and that NaN is found and named."""

from __future__ import annotations

import pytest
import torch

from lit_mm.mistake import Mistake
from lit_mm.vision import Dual, Pixels
from lit_mm.vision.latents import FiniteCheck, NonFiniteLatents, encode_to_store, stored_channels, tokens_from_store

ORIGINS = ["a.png", "b.mp4, frame 17", "c.png", "d.png", "e.png"]


def pictures(count: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("vision", [Pixels(16, 8), Dual(Pixels(16, 8), Pixels(16, 8))], ids=["one", "two"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_stored_latents_are_those_of_the_pictures(vision: Pixels | Dual, dtype: torch.dtype) -> None:
    stored = encode_to_store(vision, pictures()).to(dtype)
    assert stored.shape == (5, vision.num_tokens, stored_channels(vision))
    drawn, read = tokens_from_store(vision, stored)
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn, vision.encode(pictures()).to(dtype).float())
    assert (read is not None) == (vision.read_channels is not None)
    if read is not None:
        assert torch.equal(read, vision.read(pictures()).to(dtype).float())


def test_latents_of_another_tokenizer_are_refused() -> None:
    with pytest.raises(Mistake, match=r"\(5, 4, 192\) were given .*'pixels:16/4'.* \(frames, 16, 48\)"):
        tokens_from_store(Pixels(16, 4), encode_to_store(Pixels(16, 8), pictures()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("second", [False, True])
def test_one_bad_number_names_its_picture(value: float, second: bool) -> None:
    check = FiniteCheck("rae:x")
    latents, read = torch.zeros(5, 4, 8), torch.zeros(5, 4, 3)
    check([latents, read], ORIGINS)
    (read if second else latents)[1, 3, 2] = value
    with pytest.raises(NonFiniteLatents, match=r"in the latents of 'b.mp4, frame 17' \(visual tokenizer 'rae:x'\)"):
        check([latents, read], ORIGINS)
    with pytest.raises(NonFiniteLatents, match=r"^the latent cache has .* for 'b.mp4, frame 17' .*delete"):
        check([latents, read], ORIGINS, cached=True)


def test_many_are_counted_and_the_nameless_have_a_number() -> None:
    latents = torch.full((5, 4, 8), float("nan"))
    with pytest.raises(NonFiniteLatents, match=r"'a.png', 'b.mp4, frame 17', 'c.png' and 2 more pictures \("):
        FiniteCheck("rae:x")([latents, None], ORIGINS)
    with pytest.raises(NonFiniteLatents, match=r"of frame 0 of the batch, 'd.png' \("):
        FiniteCheck("rae:x")([latents[:3], None], ["", "d.png", "d.png"])


def test_no_frames_are_fine() -> None:
    FiniteCheck("rae:x")([torch.zeros(0, 4, 8), None], [])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_looked_at_one_call_late() -> None:
    check = FiniteCheck("rae:x")
    good = torch.zeros(5, 4, 8, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        check([good * float("nan")], ORIGINS)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with pytest.raises(NonFiniteLatents, match="'a.png'"):
        check([good], ["x"] * 5)
    check([good], ORIGINS)
    check([good / 0], ORIGINS)
    with pytest.raises(NonFiniteLatents, match="'a.png'"):
        check.flush()
    check.flush()

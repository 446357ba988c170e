from __future__ import annotations

import pytest
import torch

from lit_mm.backbone.rotary import Rotary


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-3), (torch.bfloat16, 3e-2)])
def test_pairs_turn_by_their_position(dtype, tolerance):
    """Against complex numbers in float64; at position 8,000 a bfloat16 count would be off by several turns."""
    positions = torch.tensor([[0, 1, 2, 255, 257, 8001]])
    x = torch.randn(1, 6, 3, 16).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        turned = Rotary.from_positions(positions, 16, theta=10_000.0).rotate(x)
    numbers = torch.complex(x[..., :8].double(), x[..., 8:].double())
    angles = positions[..., None].double() * 10_000.0 ** (-2 * torch.arange(8, dtype=torch.float64) / 16)
    expected = numbers * torch.exp(1j * angles)[:, :, None]
    assert turned.dtype == dtype
    torch.testing.assert_close(
        turned.double(), torch.cat((expected.real, expected.imag), -1), rtol=tolerance, atol=tolerance
    )

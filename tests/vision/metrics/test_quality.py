from __future__ import annotations

import torch

from lit_mm.vision.metrics.quality import picture_quality
from tests.vision.training.toys import shapes


def test_quality_is_that_of_its_definition() -> None:
    images = shapes(3, 32) / 255
    noisy = (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    psnr, ssim = picture_quality(noisy, images)
    expected = [-10 * torch.log10(((a - b) ** 2).mean()) for a, b in zip(noisy, images, strict=True)]
    torch.testing.assert_close(psnr, torch.stack(expected))
    same_psnr, same_ssim = picture_quality(images, images)
    assert torch.all(same_psnr.isfinite() & (same_psnr > psnr))
    torch.testing.assert_close(same_ssim, torch.ones(3), atol=1e-3, rtol=0)
    assert torch.all(ssim < 0.95)

"""How good a drawn picture is."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

MAX_PSNR = 58.9  # dB: what rounding to 8 bits loses; a picture drawn without error would count as infinite


def picture_quality(drawn: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """PSNR (F,) in dB and SSIM (F,) of pictures (F, 3, height, width) in [0, 1]."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    mse = F.mse_loss(drawn, images, reduction="none").mean(dim=(1, 2, 3))
    psnr = (-10 * mse.log10()).clamp(max=MAX_PSNR)
    ssim = structural_similarity_index_measure(drawn, images, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)
    return psnr, ssim

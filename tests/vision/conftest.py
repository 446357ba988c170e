from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lit_mm.vision.formats.folder import save_folder
from lit_mm.vision.rae_network import RaeConfig, RaeNetwork

SMALL = RaeConfig(
    encoder="vit_base_patch16_siglip_256",
    image_size=32,
    encoder_args={"embed_dim": 64, "depth": 2, "num_heads": 4, "patch_size": 8},
    decoder_hidden_size=48,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=4,
    decoder_intermediate_size=96,
)


def randomised(module: torch.nn.Module, seed: int = 0) -> None:
    """Give every tensor random values, so that no part hides behind an initialisation to zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2 + 0.05)


@pytest.fixture
def network() -> RaeNetwork:
    network = RaeNetwork(SMALL)
    randomised(network)
    return network.eval()


@pytest.fixture
def folder(network: RaeNetwork, tmp_path: Path) -> Path:
    return save_folder(network, tmp_path / "small", compact=True)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))

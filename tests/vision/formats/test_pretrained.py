"""Published weights of encoders: timm's and transformers' files and folders, and a machine without any."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lit_mm.mistake import MissingFile, Mistake
from lit_mm.vision.encoder import TimmEncoder
from tests.vision.conftest import randomised

NAME, ARGS = "vit_base_patch16_siglip_256.v2_webli", {"embed_dim": 64, "depth": 2, "num_heads": 4, "patch_size": 8}


@pytest.fixture
def published() -> nn.Module:
    """A small model as timm publishes it, with its pooling head."""
    model = timm.create_model(NAME, img_size=32, **ARGS)
    randomised(model)
    return model.eval()


@torch.no_grad()
def assert_encodes_as(published: nn.Module, pretrained: Path, images: Tensor) -> None:
    published.norm = nn.LayerNorm(64, eps=1e-6, elementwise_affine=False)
    expected = published.forward_features(images / 127.5 - 1)
    tokens = TimmEncoder(NAME, 32, str(pretrained), ARGS).eval()(images / 255)
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-5)


# ---- timm


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("given", ["folder", "file"])
def test_folder_and_file_of_timm(published: nn.Module, file: str, given: str, images: Tensor, tmp_path: Path) -> None:
    if file.endswith("bin"):
        torch.save(published.state_dict(), tmp_path / file)
    else:
        save_file(published.state_dict(), tmp_path / file)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_base_patch16_siglip_256"}))
    assert_encodes_as(published, tmp_path if given == "folder" else tmp_path / file, images)


def test_heads_are_not_needed_but_all_else_is(published: nn.Module, images: Tensor, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    whole = published.state_dict()
    tower = {name: tensor for name, tensor in whole.items() if not name.startswith("attn_pool.")}
    save_file(tower | {"head.weight": torch.ones(10, 64)}, file)
    assert_encodes_as(published, file, images)
    for cut in ("blocks.1.mlp.fc2.bias", "pos_embed"):
        save_file({name: tensor for name, tensor in tower.items() if name != cut}, file)
        with pytest.raises(Mistake, match=rf"does not fit vision\.encoder.*Missing key.*{cut}"):
            TimmEncoder(NAME, 32, str(file), ARGS)


def test_a_classifier_does_not_hide_missing_weights(tmp_path: Path) -> None:
    """Timm loads whatever there is as soon as the number of classes is another; a part would stay random."""
    name, args = "vit_base_patch16_224", {"embed_dim": 64, "depth": 2, "num_heads": 4}
    model = timm.create_model(name, img_size=32, num_classes=7, **args)
    file = tmp_path / "model.safetensors"
    save_file(model.state_dict(), file)
    TimmEncoder(name, 32, str(file), args)
    save_file({k: v for k, v in model.state_dict().items() if not k.startswith("blocks.1.")}, file)
    with pytest.raises(Mistake, match=r"Missing key.*blocks\.1\.norm1"):
        TimmEncoder(name, 32, str(file), args)


def test_broken_files_are_named(published: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    with pytest.raises(MissingFile, match=r"vision\.pretrained is '.*model\.safetensors', but there is no such"):
        TimmEncoder(NAME, 32, str(file), ARGS)
    with pytest.raises(MissingFile, match=r"model\.safetensors' does not exist, and no other weights"):
        TimmEncoder(NAME, 32, str(tmp_path), ARGS)
    file.write_bytes(b"nothing")
    with pytest.raises(Mistake, match=r"model\.safetensors' cannot be read as weights"):
        TimmEncoder(NAME, 32, str(file), ARGS)
    state = published.state_dict()
    save_file(state | {"blocks.0.norm1.weight": torch.full((64,), torch.inf)}, file)
    with pytest.raises(Mistake, match=r"holds 'blocks\.0\.norm1\.weight' with values that are not finite"):
        TimmEncoder(NAME, 32, str(file), ARGS)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_base_patch16_224"}))
    with pytest.raises(
        ValueError, match=r"holds weights of 'vit_base_patch16_224', but vision.encoder is 'vit_base_pa"
    ):
        TimmEncoder(NAME, 32, str(tmp_path), ARGS)


# ---- transformers

VIT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "patch_size": 8}
TIMM_VIT = {**ARGS, "mlp_ratio": 1.5}


def siglip() -> tuple[nn.Module, nn.Module]:
    vision = {**VIT, "image_size": 48}
    text = {"vocab_size": 20, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 1}
    model = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))
    return model, model.vision_model


def siglip_vision() -> tuple[nn.Module, nn.Module]:
    model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VIT, image_size=48))
    return model, model


def dinov2(registers: bool) -> Callable[[], tuple[nn.Module, nn.Module]]:
    def make() -> tuple[nn.Module, nn.Module]:
        kind = "Dinov2WithRegisters" if registers else "Dinov2"
        sizes = {name: size for name, size in VIT.items() if name != "intermediate_size"}
        config = getattr(transformers, f"{kind}Config")(**sizes, image_size=48, mlp_ratio=2)
        model = getattr(transformers, f"{kind}Model")(config)
        return model, model

    return make


def mae() -> tuple[nn.Module, nn.Module]:
    config = transformers.ViTMAEConfig(
        **VIT,
        image_size=48,
        mask_ratio=0.0,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    model = transformers.ViTMAEForPreTraining(config)
    return model, model.vit


FOLDERS: dict[str, tuple[Callable[[], tuple[nn.Module, nn.Module]], str, dict[str, Any], dict[str, Any], int]] = {
    "siglip 2 with its text model": (siglip, NAME, {**TIMM_VIT, "act_layer": "gelu_tanh"}, {}, 0),
    "siglip's vision model": (siglip_vision, NAME, {**TIMM_VIT, "act_layer": "gelu_tanh"}, {}, 0),
    "dinov2 with registers": (dinov2(True), "vit_base_patch14_reg4_dinov2.lvd142m", {**ARGS, "mlp_ratio": 2}, {}, 5),
    "dinov2": (dinov2(False), "vit_base_patch14_dinov2.lvd142m", {**ARGS, "mlp_ratio": 2}, {}, 1),
    "mae with its decoder": (mae, "vit_base_patch16_224.mae", TIMM_VIT, {"norm_eps": 1e-12}, 1),
}


@pytest.mark.parametrize("size", [48, 32, 64])  # as many patches as the table of positions has, fewer, more
@pytest.mark.parametrize("case", FOLDERS)
def test_folder_of_transformers(case: str, size: int, tmp_path: Path) -> None:
    make, name, args, settings, prefix_tokens = FOLDERS[case]
    whole, vision = make()
    randomised(whole)
    whole.eval().save_pretrained(tmp_path)
    norm = vision.post_layernorm if hasattr(vision, "post_layernorm") else getattr(vision, "layernorm", None)
    if norm is None:
        norm = vision.vision_model.post_layernorm  # of transformers 4
    nn.init.ones_(norm.weight)  # the norm without affine
    nn.init.zeros_(norm.bias)
    encoder = TimmEncoder(name, size, str(tmp_path), args, **settings).eval()
    pixels = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    arguments: dict[str, Any] = {} if "dinov2" in case else {"interpolate_pos_encoding": True}
    if "mae" in case:
        arguments["noise"] = torch.arange((size // 8) ** 2).expand(2, -1).float()
    with torch.no_grad():
        expected = vision(encoder.pixels(pixels), **arguments).last_hidden_state[:, prefix_tokens:]
        torch.testing.assert_close(encoder(pixels), expected, atol=1e-5, rtol=1e-5)


def test_shards_of_transformers(tmp_path: Path) -> None:
    model, _ = siglip_vision()
    randomised(model)
    args = {**TIMM_VIT, "act_layer": "gelu_tanh"}
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="100KB")
    shards = sorted((tmp_path / "many").glob("model-*.safetensors"))
    assert len(shards) > 2
    one, many = (TimmEncoder(NAME, 48, str(tmp_path / name), args).state_dict() for name in ("one", "many"))
    assert all(torch.equal(one[name], many[name]) for name in one)
    shards[1].unlink()
    with pytest.raises(MissingFile, match=r"model-00002-of-.*does not exist, but '.*index\.json' lists it"):
        TimmEncoder(NAME, 48, str(tmp_path / "many"), args)


def test_what_computes_something_else_is_refused(tmp_path: Path) -> None:
    siglip_vision()[0].save_pretrained(tmp_path)
    mae()[0].save_pretrained(tmp_path / "mae")
    with pytest.raises(
        ValueError, match=r"with gelu_tanh, but the encoder has gelu: set vision\.encoder_args\.act_lay"
    ):
        TimmEncoder(NAME, 48, str(tmp_path), TIMM_VIT)
    args = {**TIMM_VIT, "act_layer": "gelu_tanh"}
    with pytest.raises(Mistake, match=r"with 4, but the encoder has 2: set vision\.encoder_args\.num_heads"):
        TimmEncoder(NAME, 48, str(tmp_path), {**args, "num_heads": 2})
    with pytest.raises(Mistake, match=r"with 1e-12, but the encoder has 1e-06: set vision\.encoder_norm_eps"):
        TimmEncoder("vit_base_patch16_224.mae", 48, str(tmp_path / "mae"), TIMM_VIT)
    with pytest.raises(
        ValueError, match=r"holds 'blocks\.0\.mlp\.fc1\.weight' of shape \(96, 64\); .* needs \(64, 64\)"
    ):
        TimmEncoder(NAME, 48, str(tmp_path), {**args, "mlp_ratio": 1})
    tensors = {name: tensor.clone() for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    key = next(name for name in tensors if name.endswith("layers.1.self_attn.k_proj.weight"))
    for change, sentence in (
        ({key: torch.full((64, 64), torch.nan)}, r"'blocks\.1\.attn\.qkv\.weight' with values that are not finite"),
        ({"more": torch.ones(1)}, "has the unexpected more"),
        ({key: None}, r"lacks blocks\.1\.attn\.qkv\.weight"),
    ):
        kept = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
        save_file(kept, tmp_path / "model.safetensors")
        with pytest.raises(Mistake, match=rf"model\.safetensors' (holds )?{sentence}"):
            TimmEncoder(NAME, 48, str(tmp_path), args)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(
        ValueError, match=r"config\.json' is of model_type 'clip'; encoders that can be read are dinov2"
    ):
        TimmEncoder(NAME, 48, str(tmp_path), args)


# ---- the Hub


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "hub"


@pytest.mark.parametrize("offline", [True, False])
def test_without_network_it_is_said_at_once(offline: bool, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "https://127.0.0.1:9")  # nobody answers there
    started = time.monotonic()
    with pytest.raises(MissingFile) as error:
        TimmEncoder(NAME, 32, True, ARGS)
    assert time.monotonic() - started < 10
    sentence = str(error.value)
    assert f"'hf download timm/{NAME} --local-dir weights/{NAME}'" in sentence
    assert "set vision.pretrained to its path; only an explicit false starts from random weights" in sentence
    assert ("HF_HUB_OFFLINE is set" if offline else "127.0.0.1") in sentence
    assert "\n" not in sentence
    TimmEncoder(NAME, 32, False, ARGS)


def test_cached_weights_need_no_network(
    published: nn.Module, images: Tensor, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = empty_cache / f"models--timm--{NAME}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    (repository / f"snapshots/{'0' * 40}").mkdir(parents=True)
    save_file(published.state_dict(), repository / f"snapshots/{'0' * 40}/model.safetensors")
    original = TimmEncoder(NAME, 32, True, ARGS).eval()
    published.norm = nn.LayerNorm(64, eps=1e-6, elementwise_affine=False)
    with torch.no_grad():
        expected = published.forward_features(images / 127.5 - 1)
        torch.testing.assert_close(original(images / 255), expected, atol=1e-5, rtol=1e-5)


def test_a_name_without_published_weights_is_said() -> None:
    with pytest.raises(
        ValueError, match="is true, but no weights of 'vit_large_patch14_224' were published; false starts"
    ):
        TimmEncoder("vit_large_patch14_224", 32, True, ARGS)

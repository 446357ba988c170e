"""Which parameters are treated alike."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from lit_mm.backbone import ExpertFeedForward, Transformer
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.training.optimization import parameter_groups
from lit_mm.vision.rae_network import RaeConfig, RaeNetwork
from lit_mm.vision.training.lit_vae import LitVae, VaeConfig


class StackedNorms(nn.Module):
    """Of two modalities, in one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 64))


def test_groups_of_a_model_with_all_kinds_of_parameters() -> None:
    layer = partial(ExpertFeedForward, experts=10, active=3, granularity=16)
    model = MultimodalTransformer(Transformer(64, 64, 1, 4, 2, layer), 64, 8, places=4)
    model.backbone.layers[0].stacked_norm = StackedNorms()  # type: ignore[union-attr]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    hidden, outer, undecayed = ({names[id(p)] for p in group["params"]} for group in parameter_groups(model))
    assert len(hidden) + len(outer) + len(undecayed) == len(names)
    block = "backbone.layers.0."
    assert hidden == {
        *(f"{block}attention.{kind}.weight" for kind in ("query", "key", "value", "out")),
        *(f"{block}feed_forward.experts.{kind}" for kind in ("gate", "up", "down")),
    }
    assert {f"{block}feed_forward.router.weight", "backbone.embedding.weight", "text_head.linear.weight"} <= outer
    assert f"{block}stacked_norm.weight" in undecayed
    assert all("norm" in name or name.endswith("bias") for name in undecayed)
    assert not any("norm" in name or name.endswith("bias") for name in outer)


def test_matrices_within_blocks_of_other_libraries_are_hidden() -> None:
    args = {"embed_dim": 16, "depth": 1, "num_heads": 2}
    rae = RaeNetwork(
        RaeConfig(
            "vit_base_patch16_siglip_256",
            32,
            encoder_args=args,
            decoder_hidden_size=16,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=32,
        )
    )
    vae = LitVae(VaeConfig(16, [8, 8], patch_size=1)).vae
    for model, within, outside in (
        (rae, "encoder.vit.blocks.0.attn.qkv.weight", "encoder.vit.patch_embed.proj.weight"),
        (rae, "decoder.decoder_layers.0.output.dense.weight", "decoder.decoder_pred.weight"),
        (vae, "encoder.down_blocks.0.resnets.0.conv1.weight", "encoder.conv_in.weight"),
        (vae, "decoder.mid_block.attentions.0.to_q.weight", "decoder.conv_out.weight"),
    ):
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        hidden, outer, undecayed = ({names[id(p)] for p in group["params"]} for group in parameter_groups(model))
        assert within in hidden
        assert outside in outer
        assert all(model.get_parameter(name).ndim < 2 or "norm" in name for name in undecayed)

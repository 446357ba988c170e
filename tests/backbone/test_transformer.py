from __future__ import annotations

from functools import partial

import pytest
import torch
import transformers
from torch import Tensor

from lit_mm.backbone import DenseFeedForward, ModalityFeedForward, SequenceLayout, Transformer
from lit_mm.model.heads import TextHead

FEED_FORWARDS = [DenseFeedForward, ModalityFeedForward]


def tiny(feed_forward=DenseFeedForward, **changes) -> Transformer:
    torch.manual_seed(0)
    settings = dict(vocab_size=50, dim=64, depth=2, heads=4, kv_heads=2, **changes)
    return Transformer(**settings, feed_forward=partial(feed_forward, hidden_dim=96))


def influence(model: Transformer, layout: SequenceLayout, row: int) -> Tensor:
    """(L, L) bool: does the output at q change with the input at k? From exact gradients."""
    length = layout.positions.shape[1]
    x = torch.randn(*layout.positions.shape, 64, requires_grad=True)
    out = model(x, layout).hidden[row]
    seen = []
    for q in range(length):
        (gradient,) = torch.autograd.grad(out[q].square().sum() + out[q].sum(), x, retain_graph=True)
        assert not gradient[torch.arange(len(gradient)) != row].any(), "another row was read"
        seen.append(gradient[row].abs().sum(-1) > 0)
    return torch.stack(seen)


@pytest.mark.parametrize("feed_forward", FEED_FORWARDS)
def test_gradients_reach_exactly_what_the_mask_allows(random_layout, feed_forward):
    model = tiny(feed_forward)
    layout = random_layout(3)
    documents, frames = layout.document_ids[1].tolist(), layout.frame_ids[1].tolist()
    reached = influence(model, layout, row=1).tolist()
    pairs = [(q, k) for q in range(48) for k in range(48)]
    for q, k in pairs:
        same_document = documents[q] == documents[k] != -1
        same_frame = frames[q] == frames[k] != -1
        assert reached[q][k] == (q == k or (same_document and (k < q or same_frame))), (q, k)
    assert any(reached[q][k] for q, k in pairs if k > q), "no frame was read in both directions"


@pytest.mark.parametrize("feed_forward", FEED_FORWARDS)
def test_a_packed_document_comes_out_as_it_does_alone(random_layout, feed_forward):
    model, layout = tiny(feed_forward), random_layout(5)
    x = torch.randn(3, 48, 64)
    packed = model(x, layout).hidden
    for row in range(3):
        for document in range(int(layout.document_ids[row].max()) + 1):
            own = layout.document_ids[row] == document
            alone = SequenceLayout(
                layout.document_ids[row, own][None], layout.frame_ids[row, own][None], layout.positions[row, own][None]
            )
            torch.testing.assert_close(
                model(x[row, own][None], alone).hidden[0], packed[row, own], rtol=1e-4, atol=1e-5
            )


def test_padding_stays_finite_and_apart_even_when_it_holds_rubbish(random_layout):
    model, layout = tiny(ModalityFeedForward), random_layout(1)
    padding = layout.document_ids < 0
    x = torch.randn(3, 48, 64)
    rubbish = torch.where(padding[..., None], 1e4 * torch.randn(3, 48, 64), x).requires_grad_()
    clean, dirty = model(x, layout).hidden, model(rubbish, layout).hidden
    assert dirty.isfinite().all()
    torch.testing.assert_close(dirty[~padding], clean[~padding])
    dirty[~padding].sum().backward()
    assert rubbish.grad.isfinite().all()
    assert not rubbish.grad[padding].any()


def test_a_row_of_nothing_but_padding_is_finite():
    nothing = torch.full((1, 8), -1, dtype=torch.int32)
    layout = SequenceLayout(nothing, nothing, torch.zeros(1, 8, dtype=torch.int64))
    x = torch.randn(1, 8, 64, requires_grad=True)
    out = tiny()(x, layout).hidden
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()


NAMES_IN_TRANSFORMERS = {
    "embed_tokens": "embedding", "self_attn.q_proj": "attention.query", "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value", "self_attn.o_proj": "attention.out", "self_attn.q_norm": "attention.query_norm",
    "self_attn.k_norm": "attention.key_norm", "mlp.gate_proj": "feed_forward.gate", "mlp.up_proj": "feed_forward.up",
    "mlp.down_proj": "feed_forward.down", "input_layernorm": "attention_norm",
    "post_attention_layernorm": "feed_forward_norm",
}  # fmt: skip


@pytest.mark.parametrize(("architecture", "kv_heads"), [("Llama", 1), ("Llama", 2), ("Llama", 4), ("Qwen3", 2)])
def test_text_equals_models_of_transformers(architecture, kv_heads):
    """Qwen3 is Llama with norms of queries and keys."""
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, head_dim=16,
        num_key_value_heads=kv_heads, rms_norm_eps=1e-5, rope_theta=500_000.0, attn_implementation="eager",
    )  # fmt: skip
    theirs = getattr(transformers, f"{architecture}ForCausalLM")(config).eval()
    feed_forward = partial(DenseFeedForward, hidden_dim=96)
    ours = Transformer(50, 64, 3, 4, kv_heads, feed_forward, norm_eps=1e-5, qk_norm=architecture == "Qwen3")
    head = TextHead(64, 50)
    weights = {}
    for name, weight in theirs.model.named_parameters():
        weight.data.copy_(torch.randn_like(weight) * 0.1 + (weight.ndim == 1))
        for old, new in NAMES_IN_TRANSFORMERS.items():
            name = name.replace(old, new)
        weights[name] = weight.data
    ours.load_state_dict(weights)
    head.linear.weight.data.copy_(theirs.lm_head.weight.data)

    tokens = torch.randint(50, (2, 40))
    text = torch.full((2, 40), -1, dtype=torch.int32)
    layout = SequenceLayout(torch.zeros_like(text), text, torch.arange(40).expand(2, -1))
    logits = head.logits(ours(ours.embed(tokens), layout).hidden)
    torch.testing.assert_close(logits, theirs(tokens).logits, rtol=1e-4, atol=1e-5)


def parameters(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("feed_forward", "copies", "billions"), [(DenseFeedForward, 1, 1.498), (ModalityFeedForward, 2, 2.304)]
)
def test_the_papers_parameter_counts(feed_forward, copies, billions):
    with torch.device("meta"):
        total = parameters(Transformer(128_256, feed_forward=feed_forward), TextHead(2048, 128_256))
    attention = 2048 * (2048 + 512 + 512 + 2048)
    block = attention + copies * 3 * 2048 * 8192 + 2 * 2048
    assert total == 2 * 128_256 * 2048 + 16 * block + 2048
    assert round(total / 1e9, 3) == billions


@pytest.mark.parametrize("feed_forward", FEED_FORWARDS)
def test_weights_of_a_meta_model_start_like_any_other(feed_forward):
    with torch.device("meta"):
        model = Transformer(1000, 128, 8, 4, 2, partial(feed_forward, hidden_dim=512), embedding_std=0.3)
    model.to_empty(device="cpu")
    for p in model.parameters():
        p.data.fill_(float("nan"))
    model.reset_parameters()
    deviation = {name: p.std().item() for name, p in model.named_parameters() if p.ndim > 1}
    for name, std in deviation.items():
        writes_residual = ".attention.out." in name or ".feed_forward.down" in name
        # a normal cut at three deviations keeps 0.9866 of its deviation
        expected = 0.9866 * (0.3 if name == "embedding.weight" else 0.02 / (4 if writes_residual else 1))
        assert std == pytest.approx(expected, rel=0.03), name
    for name, p in model.named_parameters():
        assert p.ndim > 1 or p.eq(1).all(), name


def test_an_embedding_of_deviation_zero_is_zero():
    assert not tiny(embedding_std=0.0).embedding.weight.any()


@pytest.mark.parametrize("feed_forward", FEED_FORWARDS)
def test_bfloat16_follows_float32(random_layout, feed_forward):
    model, layout = tiny(feed_forward), random_layout(2)
    x = torch.randn(3, 48, 64, requires_grad=True)
    exact, weights = model(x, layout).hidden, torch.randn(3, 48, 64)
    (exact_gradient,) = torch.autograd.grad((weights * exact).sum(), x)
    rough = model(x.bfloat16(), layout).hidden
    assert rough.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad((weights * rough.float()).sum(), x)
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.05)
    assert torch.cosine_similarity(gradient.flatten(), exact_gradient.flatten(), dim=0) > 0.99


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 100, "heads": 3}, "model.backbone.dim is 100 with 3 heads"),
        ({"dim": 60, "heads": 4}, "model.backbone.dim is 60 with 4 heads"),
        ({"dim": 64, "heads": 4, "kv_heads": 3}, "model.backbone.kv_heads is 3.*divisor of 4"),
    ],
)
def test_heads_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Transformer(50, depth=1, **{"kv_heads": 2, **settings})

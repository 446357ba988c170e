from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.functional import silu

from lit_mm.backbone import DenseFeedForward, ExpertFeedForward, Transformer
from lit_mm.backbone.balance import balance_loss, selections, summarise, z_loss
from lit_mm.backbone.routing import Groups, Routing
from lit_mm.model.heads import TextHead
from tests.helpers.processes import on_processes

KINDS = {"softmax": lambda x: x.softmax(0), "sigmoid": lambda x: x.sigmoid()}


def some_routing(rows: int, length: int, seed: int = 0) -> Routing:
    generator = torch.Generator().manual_seed(seed)
    visual = torch.rand(rows * length, generator=generator) < 0.4
    counted = (torch.rand(rows * length, generator=generator) < 0.9).float()
    return Routing(visual, counted, visual.long(), Groups.of_two(visual))


def by_hand(layer: ExpertFeedForward, x: Tensor, visual: Tensor) -> Tensor:
    """Token by token, expert by expert."""
    router, experts = layer.router, layer.experts
    out = []
    for token, kind in zip(x.flatten(0, 1), visual.long().tolist(), strict=True):
        logits = router.weight @ token
        scores = KINDS[router.scores](logits)
        chosen = sorted(range(layer.routed), key=lambda e: -float(logits[e] + router.bias[e]))[: router.active]
        total = sum(scores[e] for e in chosen) if router.renormalise else 1.0
        weights = {e: scores[e] / total for e in chosen}
        if layer.shared == "modality":
            weights[layer.routed + kind] = 1.0
        elif layer.shared == "global":
            weights[layer.routed] = 1.0
        out.append(
            sum(
                w * (experts.down[e] @ (silu(experts.gate[e] @ token) * (experts.up[e] @ token)))
                for e, w in weights.items()
            )
        )
    return torch.stack(out).view_as(x)


@pytest.mark.parametrize("shared", ["modality", "global", "none"])
@pytest.mark.parametrize(("scores", "renormalise"), [("softmax", True), ("softmax", False), ("sigmoid", True)])
def test_it_equals_a_double_loop_over_tokens_and_experts(shared, scores, renormalise):
    torch.manual_seed(0)
    layer = ExpertFeedForward(16, 9, 3, 8, shared, scores, renormalise)
    for p in layer.parameters():
        p.data.normal_(std=0.5)
    layer.router.bias.normal_()
    plan = some_routing(3, 20)
    x = torch.randn(3, 20, 16, requires_grad=True)
    out, _ = layer(x, plan)
    weights = torch.randn_like(out)
    found = torch.autograd.grad((out * weights).sum(), [x, *layer.parameters()])
    layer, x, weights = layer.double(), x.detach().double().requires_grad_(), weights.double()
    expected = by_hand(layer, x, plan.visual)
    truths = torch.autograd.grad((expected * weights).sum(), [x, *layer.parameters()])
    torch.testing.assert_close(out, expected.float(), rtol=1e-4, atol=1e-5)
    for ours, truth in zip(found, truths, strict=True):
        torch.testing.assert_close(ours, truth.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("favourite", [True, False])
def test_all_tokens_in_one_expert_and_experts_with_none(favourite):
    torch.manual_seed(0)
    layer = ExpertFeedForward(16, 6, 1, 8, "none")
    layer.router.bias[2] = 9.0 if favourite else -9.0
    plan, x = some_routing(2, 12), torch.randn(2, 12, 16)
    out, use = layer(x, plan)
    counted = plan.counted.sum()
    assert use.tokens.sum() == counted
    assert use.tokens[:, 2].sum() == (counted if favourite else 0)
    torch.testing.assert_close(out, by_hand(layer, x, plan.visual))
    out.sum().backward()
    gradients = layer.experts.gate.grad.abs().sum((1, 2))
    assert (gradients[2] > 0) == favourite
    if favourite:
        assert gradients.count_nonzero() == 1


def test_the_shared_expert_is_each_modalitys_own():
    layer = ExpertFeedForward(16, 6, 2, 8, "modality")
    plan = replace(some_routing(2, 12), visual=torch.zeros(24, dtype=torch.bool))
    layer(torch.randn(2, 12, 16), plan)[0].sum().backward()
    gradients = layer.experts.gate.grad.abs().sum((1, 2))
    assert gradients[4] > 0
    assert gradients[5] == 0


def test_choices_are_counted_by_modality_and_without_padding():
    torch.manual_seed(0)
    layer, plan, x = ExpertFeedForward(16, 9, 3, 8), some_routing(2, 30), torch.randn(2, 30, 16)
    counted: Counter[tuple[int, int]] = Counter()
    for token, kind, real in zip(x.flatten(0, 1), plan.kinds.tolist(), plan.counted.tolist(), strict=True):
        for expert in (layer.router.weight @ token).topk(2).indices.tolist():
            counted[kind, expert] += int(real)
    _, use = layer(x, plan)
    assert [[counted[kind, expert] for expert in range(7)] for kind in (0, 1)] == use.tokens[:2].tolist()


def test_balance_loss_is_its_formula_and_known_at_both_ends():
    torch.manual_seed(0)
    scores, counted = torch.rand(40, 5), (torch.rand(40) < 0.8).float()
    chosen = scores.topk(2).indices
    load = selections(chosen, torch.zeros(40).long(), counted, 5, kinds=1)[0]
    real = [i for i in range(40) if counted[i]]
    expected = 0.0
    for e in range(5):
        share_of_choices = sum((chosen[i] == e).sum().item() for i in real) / (2 * len(real))
        mean_score = sum((scores[i, e] / scores[i].sum()).item() for i in real) / len(real)
        expected += 5 * share_of_choices * mean_score
    assert float(balance_loss(scores, load, counted)) == pytest.approx(expected, rel=1e-5)
    assert float(balance_loss(torch.ones(4, 5), torch.ones(5), torch.ones(4))) == pytest.approx(1)
    one = torch.tensor([[1.0, 0, 0, 0, 0]]).expand(4, -1)
    assert float(balance_loss(one, 4 * one[0], torch.ones(4))) == pytest.approx(5)


def test_z_loss_is_the_mean_squared_log_of_the_sum_of_exponentials():
    logits, counted = torch.randn(3, 4), torch.tensor([1.0, 0.0, 1.0])
    expected = sum(math.log(sum(math.exp(v) for v in logits[i].tolist())) ** 2 for i in (0, 2)) / 2
    assert float(z_loss(logits, counted)) == pytest.approx(expected, rel=1e-5)


def test_auxiliary_losses_are_weighted_and_reach_the_router():
    torch.manual_seed(0)
    plan, x = some_routing(2, 20), torch.randn(2, 20, 16)
    plain = ExpertFeedForward(16, 9, 3, 8)
    weighted = ExpertFeedForward(16, 9, 3, 8, balance_weight=0.01, z_weight=0.001)
    weighted.load_state_dict(plain.state_dict())
    assert float(plain(x, plan)[1].loss) == 0
    _, use = weighted(x, plan)
    choice = plain.router(x.flatten(0, 1))
    expected = 0.01 * balance_loss(choice.scores, use.tokens.sum(0), plan.counted) + 0.001 * z_loss(
        choice.logits, plan.counted
    )
    torch.testing.assert_close(use.loss, expected)
    use.loss.backward()
    assert weighted.router.weight.grad.abs().sum() > 0


def test_the_load_summary_of_known_loads():
    found = summarise(torch.tensor([[2.0, 2, 2, 2], [8, 0, 0, 0], [4, 4, 0, 0]]))
    assert found.largest.tolist() == [1, 4, 2]
    torch.testing.assert_close(found.entropy, torch.tensor([1.0, 0.0, 0.5]))
    assert found.dead.tolist() == [0, 3, 2]


def tiny(**settings) -> Transformer:
    torch.manual_seed(0)
    layer = partial(ExpertFeedForward, experts=10, active=3, granularity=16, **settings)
    return Transformer(50, 64, 2, 4, 2, layer)


def test_balancing_moves_every_bias_by_the_sign_of_its_error(random_layout):
    model = tiny(bias_rate=0.01)
    model.train()
    chosen = sum(model(torch.randn(3, 48, 64), random_layout(seed)).expert_tokens for seed in (0, 1))
    load = model.balance_experts(chosen)
    for layer, of_layer in zip(model.layers, load.sum(1), strict=True):
        for bias, tokens in zip(layer.feed_forward.router.bias.tolist(), of_layer.tolist(), strict=True):
            mean = sum(of_layer.tolist()) / 8
            assert bias == pytest.approx(0.01 * ((tokens < mean) - (tokens > mean)))


def test_balancing_evens_a_skewed_load(random_layout):
    """Tokens with a common part all prefer the same experts, until the bias has moved."""
    model = tiny(bias_rate=0.01).train()
    common = 3 * torch.randn(64)
    loads = []
    for step in range(120):
        x = common + torch.randn(3, 48, 64, generator=torch.Generator().manual_seed(step))
        with torch.no_grad():
            loads.append(model.balance_experts(model(x, random_layout(step)).expert_tokens).sum(1))
    assert summarise(loads[0]).largest.max() > 2
    assert summarise(sum(loads[-20:])).largest.max() < 1.2


def gradients(model: Transformer, run) -> tuple[Tensor, list[Tensor], Tensor]:
    model.zero_grad()
    out = run()
    weights = torch.randn(out.hidden.shape, generator=torch.Generator().manual_seed(5))
    ((weights * out.hidden).sum() + out.expert_loss).backward()
    return (
        out.hidden.detach(),
        [p.grad.clone() for p in model.parameters() if p.grad is not None],
        out.expert_tokens,
    )


def one_of_two(rank: int, folder: str) -> None:
    """Half of the rows on a model whose blocks are sharded over two processes, against all of them on a whole one."""
    layouts = [torch.load(f"{folder}/layout_{r}.pt", weights_only=False) for r in range(2)]
    x = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    whole, sharded = tiny(bias_rate=0.01).train(), tiny(bias_rate=0.01).train()
    mesh = init_device_mesh("cpu", (2,))
    for layer in sharded.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    both = [whole(x[r], layouts[r]) for r in range(2)]
    (sum(one.hidden.square().sum() for one in both) / 2).backward()
    whole_load = both[0].expert_tokens + both[1].expert_tokens
    out, _, chosen = sharded(x[rank], layouts[rank])
    out.square().sum().backward()
    torch.testing.assert_close(out, whole.eval()(x[rank], layouts[rank]).hidden)
    for (name, ours), theirs in zip(sharded.named_parameters(), whole.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad.full_tensor(), theirs.grad, msg=name, rtol=1e-4, atol=1e-5)
    assert isinstance(sharded.layers[0].feed_forward.experts.gate, DTensor)
    sharded_load = sharded.balance_experts(chosen)
    assert torch.equal(sharded_load, whole_load), "the load of both processes"
    for layer, load in zip(sharded.layers, whole_load, strict=True):
        expected = 0.01 * (load.sum(0).mean() - load.sum(0)).sign()
        torch.testing.assert_close(layer.feed_forward.router.bias, expected)


@pytest.mark.long
def test_sharded_over_two_processes_it_is_the_same(tmp_path, random_layout):
    for r in range(2):
        torch.save(random_layout(r), tmp_path / f"layout_{r}.pt")
    on_processes(one_of_two, 2, tmp_path, str(tmp_path))


@pytest.mark.long
def test_compiled_blocks_agree_in_half_precision(random_layout):
    """In float32 see tests/parallel/test_parallelize.py."""
    model, layout = tiny(balance_weight=0.1).train(), random_layout(0)
    x = torch.randn(3, 48, 64, dtype=torch.bfloat16)
    plain = gradients(model, lambda: model(x, layout))
    for layer in model.layers:
        layer.compile(fullgraph=True)
    again = gradients(model, lambda: model(x, layout))
    torch.testing.assert_close(again[0], plain[0], rtol=0.05, atol=0.05)
    for ours, theirs in zip(again[1], plain[1], strict=True):
        assert torch.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.99
    assert (plain[2] - again[2]).abs().sum() <= 0.05 * plain[2].sum()


def test_half_precision_weights_keep_the_bias_in_float32():
    layer = ExpertFeedForward(16, 9, 3, 8).to(torch.bfloat16)
    assert layer.experts.gate.dtype == torch.bfloat16
    assert layer.router.bias.dtype == torch.float32
    for _ in range(300):
        layer.router.move_bias(torch.tensor([2.0] + [1.0] * 6), 1e-3)
    torch.testing.assert_close(layer.router.bias, torch.tensor([-0.3] + [0.3] * 6))


SPARSITY = {(experts, 16, 16): None for experts in (64, 128, 512)} | {
    (32, 16, 16): "2.305", (256, 16, 16): "13.59", (1008, 16, 16): "51.46",
}  # fmt: skip
GRANULARITY = {(16 * g, g, g): "13.6" for g in (1, 4, 32, 64)}


@pytest.mark.parametrize(("numbers", "published"), (SPARSITY | GRANULARITY).items())
def test_the_papers_parameter_counts(numbers, published):
    experts, active, granularity = numbers
    shared = "none" if active == 1 else "modality"
    layer = partial(ExpertFeedForward, experts=experts, active=active, granularity=granularity, shared=shared)
    with torch.device("meta"):
        model, head = Transformer(128_256, feed_forward=layer), TextHead(2048, 128_256)
        dense = Transformer(128_256, feed_forward=DenseFeedForward)
    total = sum(p.numel() for module in (model, head) for p in module.parameters())
    expert, attention = 3 * 2048 * (8192 // granularity), 2048 * (2048 + 512 + 512 + 2048)
    router = 2048 * (experts - (0 if active == 1 else 2))
    assert total == 2 * 128_256 * 2048 + 16 * (attention + experts * expert + router + 2 * 2048) + 2048
    if published:
        assert f"{total / 1e9:.{len(published.split('.')[1])}f}" == published
    used = total - 16 * ((experts - active) * expert + router)
    assert used == sum(p.numel() for module in (dense, head) for p in module.parameters()), (
        "a token uses what dense does"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"experts": 8, "active": 9},
            "active is 9: a token would choose 8 experts.*experts: 8 only 6.*experts: 10 or more",
        ),
        ({"experts": 8, "active": 1}, "active is 1.*beside the shared one .*use 2 or more, or shared: none"),
        ({"experts": 8, "active": 0, "shared": "none"}, "active is 0.*use 1 or more"),
        ({"granularity": 7}, "granularity is 7.*divisor of 256"),
        ({"granularity": 64}, "granularity is 64: an expert's width is 4.*multiple of 8, for instance 8"),
    ],
)
def test_what_cannot_hold_is_refused(settings, message):
    with pytest.raises(ValueError, match=f"model.backbone.feed_forward.{message}|model.backbone.{message}"):
        ExpertFeedForward(64, **settings)

"""Processes that decode with one sharded model read the same tokens, whatever each of them would choose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from lit_mm.backbone import Transformer
from lit_mm.flow import FlowMatching, FlowSampler
from lit_mm.generation import loop
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.request import Request
from lit_mm.generation.sampling import TextSampling
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.parallel import Parallelize
from lit_mm.sequence import Text
from lit_mm.tokenizer import Tokenizer
from lit_mm.vision import Pixels
from tests.helpers.processes import on_processes
from tests.helpers.program import ROOT


def answers(rank: int) -> list[tuple[list[int], int, str]]:
    """What each request was answered, where the second process alone would write, draw and end otherwise."""
    t = Tokenizer(ROOT / "data/tiny/tokenizer.json")
    mesh = init_device_mesh("cpu", (2,))
    with torch.device("meta"):
        model = MultimodalTransformer(Transformer(8192, dim=32, depth=2, heads=4, kv_heads=2), 8192, 192)

    def shard(module: nn.Module, **_: object) -> None:
        fully_shard(module, mesh=mesh)

    torch.manual_seed(0)
    Parallelize()(model.eval(), torch.device("cpu"), shard)
    written = iter([300 + rank, (t.boi_id, 301)[rank], (302, t.eos_id)[rank], *range(400 + rank, 420)])

    def choose(logits: Tensor, samplings: Sequence[TextSampling], uniform: Sequence[float]) -> Tensor:
        return torch.full((len(logits),), next(written))

    loop.choose_tokens = choose
    decoder = Decoder(model, Pixels(16, 8), FlowMatching(), FlowSampler(steps=2), t)
    prefixes = [[Text(t.ids(t.bos_id, words))] for words in ("one", "two and three")]
    found = decoder.generate([Request(p, max_tokens=9, max_frames=1) for p in prefixes])
    return [(answer.ids, len(answer.latents), answer.stopped) for answer in found]


def test_processes_that_would_differ_end_together(tmp_path: Path) -> None:
    t = Tokenizer(ROOT / "data/tiny/tokenizer.json")
    wanted = ([300, t.boi_id, t.eoi_id, 302, 400, 401, 402, 403, 404], 1, "tokens")
    assert on_processes(answers, 2, tmp_path) == [[wanted, wanted]] * 2

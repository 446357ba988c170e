"""Decoding waits for the device once a step, however many rows there are, and not once a row."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lit_mm.backbone import Transformer
from lit_mm.flow import FlowMatching
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.request import Request
from lit_mm.generation.rows import CachedRows
from lit_mm.generation.sampling import TextSampling, choose_tokens
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.sequence import Text
from lit_mm.tokenizer import Tokenizer
from lit_mm.vision import Pixels
from tests.helpers.fake_cuda import fake_cuda
from tests.helpers.program import ROOT
from tests.helpers.small_model import small_model

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal"}


class Waits(TorchDispatchMode):
    """Counts what would wait for a GPU: values that Python asks for, and results of a size that is not known."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        for name in ("tolist", "cpu", "numpy"):
            monkeypatch.setattr(Tensor, name, self._counted(name, getattr(Tensor, name)))

    def _counted(self, name: str, method: Any) -> Any:
        def counted(tensor: Tensor, *args: Any) -> Any:
            self.found[name] += 1
            return method(tensor, *args)

        return counted

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = op.overloadpacket.__name__
        boolean = any(isinstance(i, Tensor) and i.dtype == torch.bool for a in args if isinstance(a, list) for i in a)
        if name in WAITING or (name.startswith("index") and boolean):
            self.found[name] += 1
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("rows", [1, 5])
def test_a_step_of_text_asks_for_values_once(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = small_model().eval()
    module.configure_model()
    t = Tokenizer(ROOT / "data/tiny/tokenizer.json")
    decoder = Decoder(module.model, module.vision, module.flow, module.sampler, t)
    monkeypatch.setattr(t, "eos_id", -1, raising=False)
    samplings = [TextSampling(), TextSampling(1.0), TextSampling(0.7, top_k=9, top_p=0.9, min_p=0.01)]
    counts = []
    for steps in (4, 14):
        prefixes = [[Text(t.ids(t.bos_id, "a " * (row + 1)))] for row in range(rows)]
        requests = [Request(p, row, steps, sampling=samplings[row % 3]) for row, p in enumerate(prefixes)]
        with monkeypatch.context() as patches, Waits(patches) as waits:
            answers = decoder.generate(requests)
        assert [len(answer.segments[0]) for answer in answers] == [steps] * rows  # type: ignore[arg-type]
        counts.append(waits.found)
    assert counts[1] - counts[0] == Counter(tolist=10)


def test_a_step_of_text_runs_on_cuda_without_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_cuda(monkeypatch), torch.no_grad():
        with torch.device("cuda"):
            backbone = Transformer(128, dim=32, depth=2, heads=4, kv_heads=2)
            model = MultimodalTransformer(backbone, 128, 192, compute_dtype=torch.bfloat16).eval()
        rows = CachedRows(model, Pixels(16, 8), FlowMatching(), 4)
        for numbers in ([0, 1, 2, 3], [0, 2, 3]):
            logits = rows.append_tokens(numbers, [5] * len(numbers))
            samplings = [TextSampling(), *[TextSampling(0.7, top_k=9, top_p=0.9, min_p=0.01)] * (len(numbers) - 1)]
            tokens = choose_tokens(logits, samplings, [0.5] * len(numbers))
            assert (tokens.device.type, tokens.shape) == ("cuda", (len(numbers),))

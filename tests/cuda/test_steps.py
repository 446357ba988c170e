"""A step on a GPU never waits for the device: on CUDA tensors without contents, whatever asks for a value raises."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from lit_mm.backbone import DenseFeedForward, ExpertFeedForward, ModalityFeedForward, Transformer
from lit_mm.module import LitMultimodal
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, Frame, PackedBatch, PackedRow, Text
from lit_mm.vision import Pixels
from tests.helpers.fake_cuda import fake_cuda

FEED_FORWARDS = {
    "dense": partial(DenseFeedForward, hidden_dim=128),
    "modality": partial(ModalityFeedForward, hidden_dim=128),
    "experts": partial(ExpertFeedForward, experts=8, active=3, granularity=4, balance_weight=0.1, z_weight=0.1),
}


def some_batch() -> PackedBatch:
    """Two rows of text and of pictures, every second of which is read."""
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    pictures = [
        Document((Text(torch.tensor([1, 3])), Frame(image, clean=i % 2 == 0), Text(torch.tensor([4, 2]))), "s")
        for i in range(4)
    ]
    documents = (Document((Text(torch.arange(5, 65)),), "s"), *pictures)
    rows = [PackedRow(documents, number, number) for number in range(2)]
    return pack_rows(rows, length=128, tokens_per_frame=4, image_size=16, pad_id=0, sources=("s",))


@pytest.mark.parametrize("feed_forward", FEED_FORWARDS)
def test_neither_training_nor_validation_asks_for_a_value(feed_forward: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = some_batch()
    with fake_cuda(monkeypatch), torch.no_grad():
        module = LitMultimodal(
            lambda vocabulary: Transformer(vocabulary, 64, 2, 4, 2, FEED_FORWARDS[feed_forward]), Pixels(16, 8), 128
        )
        module.compute_dtype = torch.bfloat16
        with torch.device("cuda"):
            module.model = module.new_model()
        monkeypatch.setattr(module, "check_finite", lambda *_: None)  # waits where values are not finite, of which
        # there are none to be told here
        module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        on_cuda = replace(batch.to("cuda"))
        loss = module.training_step(on_cuda, 0)
        module.eval().validation_step(on_cuda, 0)
        assert loss.is_cuda
        assert loss.dtype == torch.float32
        with pytest.raises(Exception, match="data-dependent|_local_scalar_dense"):
            float(loss)

"""Parts of a stranger that do not keep what they promise: each is refused with one sentence that names its class."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_modules.dataset import DocumentFormat, Draw
from data_modules.mixing.promises import check_lengths
from data_modules.mixing.rows import RowReader
from data_modules.mixing.sampler import Piece, RowPlan
from lit_mm.backbone import FeedForward, SequenceLayout, Transformer
from lit_mm.flow import FlowMatching
from lit_mm.flow.path import FlowSample
from lit_mm.mistake import Mistake
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.module import LitMultimodal
from lit_mm.parallel import Parallelize
from lit_mm.sequence import Document, Frame, Text
from lit_mm.vision import Pixels
from tests.helpers.documents import IMAGE_SIZE, TOKENS_PER_FRAME, FakeDataset

HERE = __name__


class Gelu(FeedForward):
    """Keeps its promises; each of those below breaks one."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(dim, 8, bias=False), nn.Linear(8, dim, bias=False)
        self.register_buffer("seen", torch.zeros(3, dtype=torch.int64))
        self.register_buffer("mask", torch.ones(3, dtype=torch.bool), persistent=False)
        self.reset_parameters()

    def reset_parameters(self, out_std: float = 0.02) -> None:
        nn.init.normal_(self.up.weight, std=0.02)
        nn.init.normal_(self.down.weight, std=out_std)
        self.seen.zero_()
        self.mask.fill_(True)

    def forward(self, x, routing):
        return self.down(nn.functional.gelu(self.up(x))), None


class NoScale(Gelu):
    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.scale = nn.Parameter(torch.ones(dim))


class NoDown(Gelu):
    def reset_parameters(self, out_std: float = 0.02) -> None:
        down = self.down.weight.detach().clone()
        super().reset_parameters(out_std)
        self.down.weight.data.copy_(down)


class OneRowOfUp(Gelu):
    def reset_parameters(self, out_std: float = 0.02) -> None:
        rest = self.up.weight.detach()[1:].clone()
        super().reset_parameters(out_std)
        self.up.weight.data[1:] = rest


class NoMask(Gelu):
    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("causal", torch.ones(2, 2, dtype=torch.bool).tril(), persistent=False)


class NoCount(Gelu):
    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("count", torch.tensor(0))


class NoStd(Gelu):
    def reset_parameters(self) -> None:
        super().reset_parameters()


class Single(Gelu):
    def forward(self, x, routing):
        return self.down(x[..., :8])


class Narrow(Gelu):
    def forward(self, x, routing):
        return x[..., :8], None


class Deep(Transformer):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.depth_scale = nn.Parameter(torch.ones(3))


def materialised(feed_forward: type, backbone: type = Transformer) -> MultimodalTransformer:
    with torch.device("meta"):
        made = backbone(50, dim=16, depth=1, heads=2, kv_heads=1, feed_forward=feed_forward)
        model = MultimodalTransformer(made, 50, channels=4)
    Parallelize()(model, torch.device("cpu"))
    return model


def refuses(sentence: str):
    return pytest.raises(Mistake, match=re.escape(sentence.replace("HERE", HERE)))


@pytest.mark.parametrize(
    ("feed_forward", "tensor"),
    [(NoScale, "scale"), (NoDown, "down.weight"), (OneRowOfUp, "up.weight"), (NoMask, "causal"), (NoCount, "count")],
)
def test_a_tensor_without_a_first_value_is_named(feed_forward: type, tensor: str) -> None:
    with refuses(f"reset_parameters of HERE.{feed_forward.__name__} does not set {tensor};"):
        materialised(feed_forward)


def test_all_first_values_are_there() -> None:
    model = materialised(Gelu)
    layer = model.backbone.layers[0].feed_forward
    assert not any(p.isnan().any() for p in model.parameters())
    assert layer.mask.tolist() == [True] * 3
    assert layer.seen.tolist() == [0] * 3


def test_a_tensor_beside_the_layers_is_named() -> None:
    with refuses("HERE.Deep has depth_scale, which nothing gives a first value"):
        materialised(Gelu, Deep)


@pytest.mark.parametrize(
    ("feed_forward", "sentence"),
    [
        (NoStd, "reset_parameters of HERE.NoStd does not take out_std"),
        (partial(nn.Linear, 16), "model.backbone.feed_forward made a torch.nn.modules.linear.Linear"),
        (Single, "HERE.Single.forward returned a Tensor, expected a pair: a tensor of shape (1, 4, 16)"),
        (Narrow, "HERE.Narrow.forward returned a tensor of shape (1, 4, 8), expected (1, 4, 16)"),
    ],
)
def test_feed_forwards(feed_forward, sentence: str) -> None:
    text = torch.zeros(1, 4, dtype=torch.int32)
    with refuses(sentence):
        model = Transformer(50, dim=16, depth=1, heads=2, kv_heads=1, feed_forward=feed_forward)
        model(torch.randn(1, 4, 16), SequenceLayout(text, text - 1, torch.arange(4)[None]))


class Jokes(FakeDataset):
    """Its documents are whatever it is given; 16 positions are promised for each."""

    def __init__(self, given: object) -> None:
        super().__init__("jokes", [16] * 4)
        self.given = given

    def document(self, draw: Draw):
        return self.given


TEXT = Text(torch.arange(16))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (Document((Text(torch.arange(13)),), "jokes"), "has 13 positions, but lengths promises 16"),
        (Document((Text(torch.arange(19)),), "jokes"), "has 19 positions, but lengths promises 16"),
        ([TEXT], "is a list; a lit_mm.sequence.Document is expected"),
        (None, "is None; a lit_mm.sequence.Document is expected"),
        (Document(TEXT, "jokes"), "has a Text for its segments"),  # a comma was forgotten
        (Document((Text([1] * 16),), "jokes"), "has a Text whose ids are a list; an int64 tensor"),
        (Document((Text(torch.ones(16)),), "jokes"), "has a Text whose ids are torch.float32 of shape (16,)"),
        (Document(("joke",), "jokes"), "has a segment that is a str"),
        (Document((Frame(np.zeros((3, 4, 4), np.uint8)),), "jokes"), "has a Frame whose image is a ndarray"),
        (Document((TEXT,), "puns"), "says that its source is 'puns'"),
    ],
)
@pytest.mark.parametrize("splittable", [False, True])
def test_documents(given, sentence: str, splittable: bool) -> None:
    dataset = Jokes(given)
    dataset.splittable = splittable
    reader = RowReader({"jokes": dataset}, DocumentFormat(None, IMAGE_SIZE, TOKENS_PER_FRAME), 64, "skip")
    with refuses(f"source 'jokes': document 3 {sentence}"):
        reader.read([RowPlan(0, 0, (Piece("jokes", Draw(3, 0, 0), 0, 16),))], {})


@pytest.mark.parametrize(
    ("lengths", "sentence"),
    [
        ([[16, 16]], "lengths is a list; an int32 array of shape (variants, documents)"),
        (np.array([16, 16]), "lengths is int64 of shape (2,)"),
        (np.array([[16.0]]), "lengths is float64 of shape (1, 1)"),
        (np.array([[16], [12]]), "lengths has 2 variants, but shares has 1"),
    ],
)
def test_lengths(lengths, sentence: str) -> None:
    dataset = FakeDataset("jokes", [16])
    dataset.lengths = lengths
    with refuses(f"source 'jokes': {sentence}"):
        check_lengths("jokes", dataset)


class Flat(Pixels):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images).flatten(1)


class Whole(Pixels):
    def encode(self, images: Tensor) -> Tensor:
        return super().encode(images).long()


class Bright(Pixels):
    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents).float()


class Fewer(Pixels):
    """Half of the tokens of its base, which is no mistake."""

    def __init__(self) -> None:
        super().__init__(image_size=16, patch_size=4)
        self.num_tokens //= 2

    def encode(self, images: Tensor) -> Tensor:
        self.num_tokens *= 2
        tokens = super().encode(images)
        self.num_tokens //= 2
        return tokens[:, ::2]


class Counted(Pixels):
    def fingerprint(self):
        return 7


@pytest.mark.parametrize(
    ("vision", "call", "sentence"),
    [
        (Flat, "encode", "HERE.Flat.encode returned float32 of shape (2, 768), expected floating-point of shape (2, 16, 48)"),
        (Flat, "read", "HERE.Flat.encode returned float32"),
        (Whole, "encode", "HERE.Whole.encode returned int64 of shape (2, 16, 48)"),
        (Bright, "decode", "HERE.Bright.decode returned float32 of shape (2, 3, 16, 16), expected uint8 of shape"),
        (Counted, "fingerprint", "HERE.Counted.fingerprint returned 7, expected a text"),
    ],
)  # fmt: skip
def test_visual_tokenizers(vision: type, call: str, sentence: str) -> None:
    tokenizer = vision(image_size=16, patch_size=4)
    given = {"decode": [torch.zeros(2, 16, 48)], "fingerprint": []}
    with refuses(sentence):
        getattr(tokenizer, call)(*given.get(call, [torch.zeros(2, 3, 16, 16, dtype=torch.uint8)]))


def test_what_super_returns_is_not_judged() -> None:
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(Fewer().encode(images), Pixels(16, 4).encode(images)[:, ::2])


@pytest.mark.parametrize("attribute", ["image_size", "num_tokens", "channels"])
def test_missing_sizes(attribute: str) -> None:
    vision = Flat(image_size=16, patch_size=4)
    delattr(vision, attribute)
    with refuses(f"HERE.Flat.{attribute} is missing"):
        LitMultimodal(backbone=lambda size: None, vision=vision, vocab_size=8)


class Mean(FlowMatching):
    def loss(self, output, sample):
        return super().loss(output, sample).mean()


def test_flow_losses() -> None:
    sample = FlowSample(torch.randn(3, 4, 2), torch.randn(3, 4, 2), torch.rand(3))
    with refuses("HERE.Mean.loss returned shape (), expected shape (3,)"):
        Mean().frame_losses(torch.randn(3, 4, 2), sample)
    torch.testing.assert_close(FlowMatching().frame_losses(sample.velocity, sample), torch.zeros(3))

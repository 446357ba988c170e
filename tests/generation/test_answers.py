"""Prompts become the documents of training; those that cannot be answered say why, and the others are answered."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lit_mm.generation.answers import answer, answer_all
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.request import Continuation
from lit_mm.prompt import Answer, FailedPrompt, Prompt
from lit_mm.sequence import Frame, Text
from lit_mm.tokenizer import Tokenizer
from tests.helpers.program import ROOT
from tests.helpers.small_model import small_model


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    """As new: its velocity head is zero, as that of a model which was trained on text alone."""
    module = small_model().eval()
    module.configure_model()
    tokenizer = Tokenizer(ROOT / "data/tiny/tokenizer.json")
    return Decoder(module.model, module.vision, module.flow, module.sampler, tokenizer)


@pytest.fixture
def drawing(decoder: Decoder) -> Decoder:
    """The same, once it has learned to draw something."""
    weight = decoder.model.velocity_head.linear.weight
    nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
    yield decoder
    nn.init.zeros_(weight)


def picture(seed: int) -> Tensor:
    return torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


TEXT = Prompt("text", "text", ("My fellow Americans",), max_tokens=4)
DRAW = Prompt("draw", "image", ("a fox",))
LONG = Prompt("long", "text", ("We the people. " * 200,), max_tokens=4)
WALK = Prompt("walk", "frames", tuple(picture(i) for i in range(4)), actions=("left", "right"), seed=3)
DESCRIBE = Prompt("describe", "text", (picture(0), "What is it?"), max_tokens=4)


def test_a_model_of_text_alone_is_not_asked_for_pictures(decoder: Decoder) -> None:
    answered = answer_all(decoder, [DRAW, TEXT, WALK, DESCRIBE])
    assert [type(one) for one in answered] == [FailedPrompt, Answer, FailedPrompt, Answer]
    for failed, name in ((answered[0], "draw"), (answered[2], "walk")):
        assert isinstance(failed, FailedPrompt)
        assert failed.error.startswith(
            f"prompt '{name}': it asks for pictures, but the model was never trained to draw"
        )
        assert "\n" not in failed.error


def test_a_prompt_longer_than_the_context_fails_alone(drawing: Decoder) -> None:
    answered = answer_all(drawing, [LONG, TEXT, WALK], context=110)
    assert [type(one) for one in answered] == [FailedPrompt, Answer, Answer]
    length = 1 + len(drawing.tokenizer.encode(str(LONG.parts[0]))) + 1
    assert isinstance(answered[0], FailedPrompt)
    assert answered[0].error.startswith(f"prompt 'long': it takes {length} positions")
    assert "rows of 110" in answered[0].error
    with pytest.raises(ValueError, match="long"):
        answer(drawing, LONG, context=110)


def test_the_context_is_counted_to_the_last_position(drawing: Decoder) -> None:
    """Four frames with delimiters, an action, the frame to draw and its end: exactly so many, and one less."""
    length = 1 + 4 * 18 + len(drawing.tokenizer.encode("right")) + 18
    one = Prompt("walk", "frames", WALK.parts, actions=("right",))
    assert isinstance(answer_all(drawing, [one], context=length)[0], Answer)
    assert isinstance(answer_all(drawing, [one], context=length - 1)[0], FailedPrompt)


def test_settings_out_of_range_fail_alone(drawing: Decoder) -> None:
    wrong = Prompt("hot", "text", ("We",), sampling={"temperature": -1.0})
    answered = answer_all(drawing, [wrong, TEXT])
    assert isinstance(answered[0], FailedPrompt)
    assert "temperature" in answered[0].error
    assert isinstance(answered[1], Answer)


def test_prompts_are_the_documents_of_training(drawing: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model is given to continue, written out by hand."""
    t, asked = drawing.tokenizer, []

    def generate(self: Decoder, requests: list) -> list:
        asked.extend(requests)
        return [Continuation() for _ in requests]

    monkeypatch.setattr(Decoder, "generate", generate)
    interleaved = Prompt("both", "image", ("one", picture(0), picture(1), "two"))
    answer_all(drawing, [TEXT, DRAW, DESCRIBE, interleaved])
    written = ["".join("#" if isinstance(s, Frame) else t.decode(s.ids) for s in request.prefix) for request in asked]
    assert written == [
        "<bos>My fellow Americans",
        "<bos>a fox<boi>",
        "<bos><boi>#<eoi>What is it?",
        "<bos>one<boi>#<eoi><boi>#<eoi>two<boi>",
    ]
    shown = [s.image for s in asked[3].prefix if isinstance(s, Frame)]
    assert torch.equal(shown[0], picture(0))
    assert torch.equal(shown[1], picture(1))
    assert [(r.max_tokens, r.max_frames) for r in asked] == [(4, 0), (0, 1), (4, 0), (0, 1)]
    assert all(isinstance(s, Text | Frame) for r in asked for s in r.prefix)


def test_a_prompt_is_answered_alone_as_beside_others(drawing: Decoder) -> None:
    sampled = Prompt("sampled", "text", ("We",), seed=5, max_tokens=6, sampling={"temperature": 1.0})
    prompts = [DRAW, sampled, WALK, TEXT, Prompt("quick", "image", ("a fox",), sampler={"steps": 1, "method": "heun"})]
    together = answer_all(drawing, prompts)
    for prompt, beside in zip(prompts, together, strict=True):
        alone = answer(drawing, prompt)
        assert isinstance(beside, Answer)
        assert alone.text == beside.text
        assert alone.stopped == beside.stopped
        assert len(alone.frames) == {"image": 1, "text": 0, "frames": 2}[prompt.wanted]
        if len(alone.frames):
            assert (alone.frames.int() - beside.frames.int()).abs().max() <= 1
    assert not torch.equal(together[0].frames, together[4].frames), "fewer steps draw something else"  # type: ignore[union-attr]

"""A question is asked as conversations are written down in training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from data_modules.conversation import ConversationSource
from data_modules.dataset import DocumentFormat, Draw
from data_modules.prompting.prompts import Prompts
from data_modules.prompting.template import Template
from lit_mm.generation.answers import answer_all
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.request import Continuation, Request
from lit_mm.mistake import Mistake
from lit_mm.prompt import FailedPrompt, Prompt
from lit_mm.sequence import Frame, Segment
from lit_mm.tokenizer import Tokenizer
from tests.helpers.program import ROOT
from tests.helpers.small_model import small_model
from tests.helpers.tars import picture

TEMPLATES = {"plain": Template(), "lines": Template("{text}\n", "Question: {text}\n", "Answer: {text}\n###<eos>")}
ASKED = [
    {"answer": "What <eos> is it?", "pictures": "red.png"},
    {"answer": "Is <image> like <image>?", "pictures": ["red.png", "green.png"], "stop": "!"},
    {"answer": [{"system": "Be brief."}, {"user": "One?"}, {"assistant": "Two."}, {"user": "Three?"}]},
]
TAUGHT = [
    {"image": "red.png", "messages": [{"role": "user", "content": "What <eos> is it?"}]},
    {"images": ["red.png", "green.png"], "messages": [{"role": "user", "content": "Is <image> like <image>?"}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "Two."},
            {"role": "user", "content": "Three?"},
        ]
    },
]
ANSWER = "It is so."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in {"red": (255, 0, 0), "green": (0, 255, 0)}.items():
        (tmp_path / f"{name}.png").write_bytes(picture(colour))
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(ASKED))
    entries = [{**one, "messages": [*one["messages"], {"role": "assistant", "content": ANSWER}]} for one in TAUGHT]
    (tmp_path / "taught.json").write_text(json.dumps(entries))
    return tmp_path


def flat(segments: list[Segment] | tuple[Segment, ...]) -> list[int]:
    """Tokens, and -1 and the first pixels for each picture."""
    ids: list[int] = []
    for segment in segments:
        ids += [-1, *segment.image[:, 0, 0].tolist()] if isinstance(segment, Frame) else segment.ids.tolist()
    return ids


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_prompt_is_a_document_of_training_up_to_its_answer(
    template: Template, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = small_model().eval()
    module.configure_model()
    t = Tokenizer(ROOT / "data/tiny/tokenizer.json")
    decoder = Decoder(module.model, module.vision, module.flow, module.sampler, t)
    given: list[Request] = []
    monkeypatch.setattr(
        Decoder, "generate", lambda self, requests: given.extend(requests) or [Continuation() for _ in requests]
    )
    prompts = Prompts(str(folder / "prompts.yaml"), 64, template=template)
    answer_all(decoder, [prompts[i] for i in range(3)])
    format = DocumentFormat(t, 64, decoder.vision.num_tokens)
    source = ConversationSource(str(folder / "taught.json"))
    source.template = template
    dataset = source.dataset("train", "talk", format)
    assert dataset is not None
    for number, request in enumerate(given):
        taught = flat(dataset.document(Draw(number, 0, 0)).segments)
        asked = flat(list(request.prefix))
        assert taught[: len(asked)] == asked
        assert t.decode(taught[len(asked) :]).startswith(ANSWER)
    assert [request.stop for request in given] == [(), ("!",), ()] if template == Template() else True
    assert all(request.stop[-1:] == ("\n###",) for request in given) or template == Template()


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"answer": "<image>?"}, r"'answer' has 1 <image> marks, but no pictures$"),
        ({"answer": [{"robot": "hi"}]}, r"'answer' has the role 'robot' in turn 1; known are"),
        ({"answer": {"user": "hi"}}, r"'answer' is \{'user': 'hi'\}; give a question, or turns such as"),
        ({"answer": ""}, r"'user' is ''; give a text"),
        ({"answer": "a?", "pictures": "none.png"}, r"'pictures': there is no file 'none.png'"),
    ],
)
def test_what_cannot_be_asked_is_said(item: dict, said: str, folder: Path) -> None:
    (folder / "bad.yaml").write_text(yaml.safe_dump([item]))
    prompt = Prompts(str(folder / "bad.yaml"), 64)[0]
    assert isinstance(prompt, FailedPrompt)
    with pytest.raises(Mistake, match=said):
        raise Mistake(prompt.error)


def test_it_may_be_asked_in_python() -> None:
    from PIL import Image

    from data_modules.prompting.prompts import prompts_of

    (prompt,) = prompts_of({"answer": "What?", "pictures": Image.new("RGB", (8, 8))}, 8, None, 0)
    assert isinstance(prompt, Prompt)
    assert [part if isinstance(part, str) else part.shape for part in prompt.parts] == [
        "User: ",
        (3, 8, 8),
        "What?",
        "<eos>",
        "Assistant: ",
    ]

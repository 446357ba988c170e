"""Conversations of every layout become the same documents, with loss on answers alone."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data_modules.composed import ComposedDataset
from data_modules.conversation import ConversationSource
from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.prompting.template import Template
from data_modules.reading.files import Tolerance
from lit_mm.mistake import Mistake
from lit_mm.packing import pack_rows
from lit_mm.sequence import IGNORE, Document, Frame, PackedBatch, PackedRow
from tests.helpers.mixed import check_mixture, shown
from tests.helpers.tars import picture

RED, GREEN = (255, 0, 0), (0, 255, 0)
SHOWN = (
    "<bos>User: <boi>[read]<eoi>What is it?<eos>Assistant: a red cube<eos>User: And now?<eos>Assistant: the cat<eos>"
)
LLAVA = {
    "id": "1",
    "image": "train/1.png",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "a red cube"},
        {"from": "human", "value": "And now?"},
        {"from": "gpt", "value": "the cat"},
    ],
}
ASKED, TOLD = {"role": "user", "content": "And now?"}, {"role": "assistant", "content": "the cat"}
CHAT = {
    "messages": [
        {"role": "user", "content": "<image>What is it?"},
        {"role": "assistant", "content": "a red cube"},
        ASKED,
        TOLD,
    ],
    "images": ["train/1.png"],
}
PARTS = {
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "train/1.png"}},
                {"type": "text", "text": "What is it?"},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "a red cube"}]},
        ASKED,
        TOLD,
    ]
}
TURNS = [{"user": "What is it?", "assistant": "a red cube"}, {"user": "And now?", "assistant": "the cat"}]
INLINE = {**CHAT, "images": ["data:image/png;base64," + base64.b64encode(picture(RED)).decode()]}
ONE_TEXT_MORE = {"conversations": [{"from": "human", "value": "one?"}, {"from": "gpt", "value": "two"}]}


def write_pictures(folder: Path) -> Path:
    (folder / "train").mkdir(parents=True)
    for name, colour in {"1.png": RED, "2.png": GREEN}.items():
        (folder / "train" / name).write_bytes(picture(colour))
    return folder


def write(path: Path, entries: list[Any]) -> Path:
    """As the name ends: JSON Lines, a list, compressed, or Parquet."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(entries), path)
    elif path.name.endswith(".json"):
        path.write_text(json.dumps(entries, indent=1))
    else:
        pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, lambda content: content)
        path.write_bytes(pack("".join(json.dumps(entry) + "\n" for entry in entries).encode()))
    return path


def load(
    path: Path, format: DocumentFormat, on_error: str = "raise", template: Template | None = None, **options: Any
) -> ComposedDataset:
    module = ConversationSource(str(path), **options)
    module.template = template or Template()
    module.tolerance = Tolerance(on_error)
    dataset = module.dataset("train", "talk", format)
    assert dataset is not None
    return pickle.loads(pickle.dumps(dataset))


def packed(document: Document, format: DocumentFormat, length: int = 256) -> PackedBatch:
    row, t = PackedRow((document,), number=0, seed=0), format.tokenizer
    return pack_rows([row], length=length, tokens_per_frame=4, image_size=32, pad_id=t.pad_id, sources=("talk",))


def learned(document: Document, format: DocumentFormat) -> str:
    targets = packed(document, format).targets[0]
    return format.tokenizer.decode(targets[targets != IGNORE])


LAYOUTS = {
    "LLaVA, a list": ("a.json", LLAVA),
    "Cambrian, JSON Lines": ("a.jsonl", LLAVA),
    "gzip": ("a.jsonl.gz", LLAVA),
    "zstd": ("a.jsonl.zst", LLAVA),
    "list of pictures": ("a.json", {**LLAVA, "image": ["train/1.png"]}),
    "no mark": ("a.json", {**LLAVA, "conversations": [{"from": "human", "value": "What is it?"}, *LLAVA["conversations"][1:]]}),
    "chat": ("a.jsonl", CHAT),
    "chat of parts": ("a.jsonl", PARTS),
    "pictures as text": ("a.jsonl", INLINE),
    "Parquet of paths": ("a.parquet", CHAT),
    "Parquet of bytes": ("a.parquet", {**CHAT, "images": [{"bytes": picture(RED), "path": None}]}),
    "Parquet, one picture": ("a.parquet", {**LLAVA, "image": {"bytes": picture(RED), "path": "1.png"}}),
    "the Cauldron": ("a.parquet", {"images": [{"bytes": picture(RED), "path": None}], "texts": TURNS}),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_the_same(layout: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    name, entry = LAYOUTS[layout]
    dataset = load(write(write_pictures(tmp_path) / name, [entry]), document_format)
    assert len(dataset) == 1
    document = dataset.document(Draw(0, 0, 0))
    assert shown(document, document_format) == SHOWN
    assert document.length(4) == dataset.lengths[0, 0]
    (frame,) = (s for s in document.segments if isinstance(s, Frame))
    assert frame.image[:, 16, 16].tolist() == list(RED)
    assert learned(document, document_format) == "a red cube<eos>the cat<eos>"


def test_several_pictures_stand_where_they_are_marked(tmp_path: Path, document_format: DocumentFormat) -> None:
    entry = {
        "images": ["train/1.png", "train/2.png"],
        "conversations": [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "Is <image> like <image>?"},
            {"from": "gpt", "value": "No <eos> <image"},
        ],
    }
    dataset = load(write(write_pictures(tmp_path) / "a.jsonl", [entry, ONE_TEXT_MORE]), document_format)
    document = dataset.document(Draw(0, 0, 0))
    expected = "<bos>Be brief.<eos>User: Is<boi>[read]<eoi>like<boi>[read]<eoi>?<eos>Assistant: No <eos> <image<eos>"
    assert shown(document, document_format) == expected
    frames = [s.image[:, 16, 16].tolist() for s in document.segments if isinstance(s, Frame)]
    assert frames == [list(RED), list(GREEN)]
    ids = [int(i) for s in document.segments if not isinstance(s, Frame) for i in s.ids]
    assert ids.count(document_format.tokenizer.eos_id) == 3, "an <eos> that is written is text"
    assert shown(dataset.document(Draw(1, 0, 0)), document_format) == "<bos>User: one?<eos>Assistant: two<eos>"


def test_a_picture_in_an_answer_is_drawn_and_then_read(tmp_path: Path, document_format: DocumentFormat) -> None:
    turns = [{"from": "human", "value": "Draw."}, {"from": "gpt", "value": "Here: <image> done"}]
    entry = {"image": "train/2.png", "conversations": turns}
    document = load(write(write_pictures(tmp_path) / "a.json", [entry]), document_format).document(Draw(0, 0, 0))
    assert shown(document, document_format) == (
        "<bos>User: Draw.<eos>Assistant: Here:<boi>[drawn]/1[read]<eoi>done<eos>"
    )
    assert learned(document, document_format) == "Here:<boi>done<eos>"


def test_loss_on_all_and_a_template_of_special_tokens(tmp_path: Path, document_format: DocumentFormat) -> None:
    file = write(write_pictures(tmp_path) / "a.json", [LLAVA])
    document = load(file, document_format, loss="all").document(Draw(0, 0, 0))
    assert learned(document, document_format) == SHOWN.removeprefix("<bos>").replace("[read]<eoi>", "")
    template = Template(user="Q: {text}\n", assistant="A: {text}\n")
    document = load(file, document_format, template=template).document(Draw(0, 0, 0))
    expected = "<bos>Q: <boi>[read]<eoi>What is it?\nA: a red cube\nQ: And now?\nA: the cat\n<eos>"
    assert shown(document, document_format) == expected
    assert learned(document, document_format) == "a red cube\nthe cat\n<eos>"
    with pytest.raises(Mistake, match=r"data.template.user is 'Q: '; write {text} once"):
        Template(user="Q: ")


def test_long_conversations_are_cut_between_turns(
    tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture
) -> None:
    turns = [
        {"from": speaker, "value": value}
        for i in range(6)
        for speaker, value in (("human", f"question {i}"), ("gpt", f"answer {i}" + " very long" * 60 * (i == 3)))
    ]
    turns[0]["value"] = "<image> " + turns[0]["value"]
    file = write(write_pictures(tmp_path) / "a.json", [{**LLAVA, "conversations": turns}, ONE_TEXT_MORE])
    with caplog.at_level("WARNING"):
        dataset = load(file, document_format, window=120)
    assert "data.train: left out 1 questions, longer with their answers than window (120)" in caplog.text
    documents = [dataset.document(Draw(i, 0, 0)) for i in range(len(dataset))]
    assert max(d.length(4) for d in documents) <= 120
    assert [d.length(4) for d in documents] == dataset.lengths[0].tolist()
    texts = [shown(d, document_format) for d in documents]
    assert len(texts) > 2
    assert all(text.startswith(("<bos><boi>[read]<eoi>User:", "<bos>User: <boi>[read]<eoi>")) for text in texts[:-1])
    answers = "".join(learned(d, document_format) for d in documents)
    assert answers == "".join(f"answer {i}<eos>" for i in (0, 1, 2, 4, 5)) + "two<eos>"


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a mark without a picture": ({**LLAVA, "image": None}, "has 1 <image> marks, but no pictures"),
    "more marks": (
        {**LLAVA, "conversations": [{"from": "human", "value": "<image><image>"}, {"from": "gpt", "value": "x"}]},
        "has 2 <image> marks, but 1 picture$",
    ),
    "fewer marks": ({**LLAVA, "image": ["1.png", "2.png"]}, "has 2 pictures, but 1 <image> mark$"),
    "an empty answer": (
        {"conversations": [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "  "}]},
        "has an empty answer in turn 2",
    ),
    "an unknown role": (
        {"conversations": [{"from": "robot", "value": "a?"}, {"from": "gpt", "value": "b"}]},
        "has the role 'robot' in turn 1; known are system, user, human, assistant, gpt and model",
    ),
    "no answer": ({"conversations": [{"from": "human", "value": "a?"}]}, "has no answer"),
    "no turns": ({"text": "x"}, "has none of the columns conversations, messages or texts; there are text$"),
    "an address": ({**LLAVA, "image": "https://a/b.jpg"}, "has a picture at 'https://a/b.jpg'; download it"),
    "an unknown part": (
        {"messages": [{"role": "user", "content": [{"type": "audio"}]}, TOLD]},
        "has a part of the type 'audio'; known are text, image and image_url",
    ),
}


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize("how", BROKEN)
def test_what_is_wrong_is_named_or_left_out(
    how: str, suffix: str, tmp_path: Path, document_format: DocumentFormat
) -> None:
    entries: list[Any] = [ONE_TEXT_MORE] * 150
    entries[6], reason = BROKEN[how]
    file = write(tmp_path / f"a.{suffix}", entries)
    place = "entry 7" if suffix == "json" else "line 7"
    with pytest.raises(BrokenFile, match=f"a.{suffix}' broke while being read: {place} {reason}") as caught:
        load(file, document_format)
    assert len(str(caught.value).splitlines()) == 1
    dataset = load(file, document_format, "skip")
    assert (len(dataset), dataset.skipped_at_setup) == (149, 1)


def test_a_broken_row_of_parquet_is_named(tmp_path: Path, document_format: DocumentFormat) -> None:
    for name in ("0", "1"):
        write(tmp_path / f"{name}.parquet", [ONE_TEXT_MORE] * 5 + [BROKEN["an empty answer"][0]] * (name == "1"))
    with pytest.raises(BrokenFile, match="1.parquet' broke while being read: row 5 has an empty answer in turn 2"):
        load(tmp_path / "*.parquet", document_format)
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(Mistake, match=r"has none of the columns conversations, messages or texts; there are text$"):
        load(tmp_path / "t.parquet", document_format)


def test_cut_files_and_missing_pictures(tmp_path: Path, document_format: DocumentFormat) -> None:
    file = write(tmp_path / "a.json", [ONE_TEXT_MORE] * 3)
    file.write_text(file.read_text()[:-40])
    with pytest.raises(BrokenFile, match=r"a.json' broke while being read: entry 3 is not a JSON object \("):
        load(file, document_format)
    file = write(
        tmp_path / "b.jsonl.zst",
        [{**ONE_TEXT_MORE, "n": base64.b64encode(bytes([i] * 99)).decode()} for i in range(200)],
    )
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(BrokenFile, match=r"b.jsonl.zst' broke while being read: "):
        load(file, document_format)
    dataset = load(write(tmp_path / "c.json", [LLAVA]), document_format)
    with pytest.raises(BrokenFile, match=r"c.json' names 'train/1.png', but there is no such file in '.*'"):
        dataset.document(Draw(0, 0, 0))
    with pytest.raises(Mistake, match=r"data.train: '.*' holds no conversation that fits 9 positions \(window\)"):
        load(tmp_path / "c.json", document_format, window=9)


def test_pictures_lie_in_a_folder_of_their_own(tmp_path: Path, document_format: DocumentFormat) -> None:
    write_pictures(tmp_path / "pictures")
    dataset = load(write(tmp_path / "a.json", [LLAVA]), document_format, pictures=str(tmp_path / "pictures"))
    assert shown(dataset.document(Draw(0, 0, 0)), document_format) == SHOWN
    assert len(dataset.picture_keys()) == 1
    assert dataset.pictures is not None
    before = dataset.pictures.identities(dataset.picture_keys()).tolist()
    (tmp_path / "pictures/train/1.png").write_bytes(picture(GREEN))
    assert dataset.pictures.identities(dataset.picture_keys()).tolist() != before


def test_in_a_mixture(tmp_path: Path, document_format: DocumentFormat) -> None:
    entries = [
        {**LLAVA, "conversations": [*LLAVA["conversations"], *ONE_TEXT_MORE["conversations"] * (i % 3)]}
        for i in range(40)
    ]
    file = write(write_pictures(tmp_path) / "a.json", entries)
    check_mixture(ConversationSource(str(file), window=128), tmp_path, document_format)

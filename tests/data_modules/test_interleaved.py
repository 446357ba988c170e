"""Pages of every layout become the same documents; a picture is drawn from what is before it, and read by the rest."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.interleaved import InterleavedDataset, InterleavedSource
from data_modules.reading.files import Tolerance
from lit_mm.backbone import SequenceLayout
from lit_mm.backbone.masks import build_mask
from lit_mm.mistake import Mistake
from lit_mm.packing import pack_rows
from lit_mm.sequence import IGNORE, Document, Frame, PackedBatch, PackedRow
from tests.helpers.mixed import check_mixture, shown
from tests.helpers.tars import picture

COLOURS = {"1.png": (255, 0, 0), "2.png": (0, 255, 0), "3.png": (0, 0, 255)}
OBELICS = {"texts": ["a red cube", None, "the cat", None], "images": [None, "1.png", None, "2.png"], "metadata": "[]"}
MMC4 = {
    "text_list": ["a red", "cube", "the cat", "sat"],
    "image_info": [
        {"image_name": "1.png", "matched_text_index": 2, "raw_url": "http://x/1.png", "matched_sim": 0.3},
        {"image_name": "2.png", "matched_text_index": 3},
    ],
}
CONTENT = {
    "content": [
        {"type": "text", "text": "a red cube"},
        {"type": "image", "image": "1.png"},
        {"type": "text", "text": "the cat"},
        {"type": "image_url", "image_url": {"url": "2.png"}},
    ]
}
SHOWN = "<bos>a red cube<boi>[drawn]/1[read]<eoi>the cat<boi>[drawn]<eoi><eos>"


def write(path: Path, entries: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, colour in COLOURS.items():
        (path.parent / name).write_bytes(picture(colour))
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(entries), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(entries))
    else:
        lines = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


def load(path: Path, format: DocumentFormat, on_error: str = "raise", **options: Any) -> InterleavedDataset:
    module = InterleavedSource(str(path), **options)
    module.tolerance = Tolerance(on_error)
    dataset = module.dataset("train", "pages", format)
    assert dataset is not None
    return pickle.loads(pickle.dumps(dataset))


def packed(document: Document, format: DocumentFormat) -> PackedBatch:
    row, t = PackedRow((document,), number=0, seed=0), format.tokenizer
    return pack_rows([row], length=128, tokens_per_frame=4, image_size=32, pad_id=t.pad_id, sources=("pages",))


def learned(document: Document, format: DocumentFormat) -> str:
    targets = packed(document, format).targets[0]
    return format.tokenizer.decode(targets[targets != IGNORE])


def bytes_of(name: str | None) -> dict[str, Any] | None:
    return None if name is None else {"bytes": picture(COLOURS[name]), "path": None}


LAYOUTS = {
    "OBELICS": ("a.jsonl", OBELICS),
    "OBELICS, a list": ("a.json", OBELICS),
    "OBELICS, Parquet of paths": ("a.parquet", OBELICS),
    "OBELICS, Parquet of bytes": ("a.parquet", {**OBELICS, "images": [*map(bytes_of, OBELICS["images"])]}),
    "MMC4": ("a.jsonl.gz", MMC4),
    "parts": ("a.jsonl", CONTENT),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_the_same(layout: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    name, entry = LAYOUTS[layout]
    dataset = load(write(tmp_path / name, [entry]), document_format)
    expected = (
        SHOWN.replace("the cat<boi>[drawn]<eoi>", "the cat<boi>[drawn]/2[read]<eoi>sat") if layout == "MMC4" else SHOWN
    )
    document = dataset.document(Draw(0, 0, 0))
    assert shown(document, document_format) == expected
    colours = [s.image[:, 16, 16].tolist() for s in document.segments if isinstance(s, Frame)]
    assert colours[:2] == [list(COLOURS["1.png"])] * 2
    assert colours[2] == list(COLOURS["2.png"])


def test_variants(tmp_path: Path, document_format: DocumentFormat) -> None:
    dataset = load(write(tmp_path / "a.jsonl", [OBELICS, {"texts": ["only <eos> text"]}]), document_format, drawn=0.5)
    assert dataset.variants == ("drawn", "unconditional", "read")
    assert dataset.shares == pytest.approx((0.45, 0.05, 0.5))
    documents = [dataset.document(Draw(0, v, 0)) for v in range(3)]
    assert [shown(d, document_format) for d in documents] == [
        SHOWN,
        "<bos><boi>[drawn]/1[read]<eoi><boi>[drawn]<eoi><eos>",
        "<bos>a red cube<boi>[read]<eoi>the cat<boi>[read]<eoi><eos>",
    ]
    text = "a red cube<boi>the cat<boi><eos>"
    assert [learned(d, document_format) for d in documents] == [text, "", text]
    assert {shown(dataset.document(Draw(1, v, 0)), document_format) for v in range(3)} == {"<bos>only <eos> text<eos>"}
    for index in range(2):
        for variant in range(3):
            length = dataset.document(Draw(index, variant, 0)).length(4)
            assert length == dataset.lengths[variant, index]
    assert load(tmp_path / "a.jsonl", document_format, drawn=0).variants == ("read",)


def test_what_follows_reads_the_clean_copy_and_the_drawn_one_sees_what_is_before(
    tmp_path: Path, document_format: DocumentFormat
) -> None:
    batch = packed(
        load(write(tmp_path / "a.jsonl", [OBELICS]), document_format).document(Draw(0, 0, 0)), document_format
    )
    layout = SequenceLayout(batch.document_ids, batch.frame_ids, batch.positions, batch.branch_ids)
    query = torch.zeros(1, 1, 128, 128)
    seen = build_mask(layout, "sdpa").attend(query, query, torch.eye(128)[None, None])[0, 0] > 0
    drawn, read, last = batch.visual_positions
    assert batch.frame_clean.tolist() == [False, True, False]
    assert torch.equal(batch.positions[0, drawn], batch.positions[0, read]), "they stand at the same place"
    before, after = slice(0, int(drawn[0])), slice(int(read[-1]) + 1, int(last[-1]) + 1)
    for copy, other in ((drawn, read), (read, drawn)):
        assert seen[copy][:, before].all()
        assert seen[copy][:, copy].all()
        assert not seen[copy][:, other].any()
    assert seen[after][:, read].all()
    assert not seen[after][:, drawn].any()


def test_long_pages_are_cut_and_frames_are_not(tmp_path: Path, document_format: DocumentFormat) -> None:
    names = [*COLOURS] * 4
    texts = [f"text number {i} " * (3 + 9 * (i % 3)) for i in range(len(names))]
    page = {"texts": [t for text in texts for t in (text, None)], "images": [i for name in names for i in (None, name)]}
    file = write(tmp_path / "a.jsonl", [page])
    for options in ({"window": 60}, {"window": 100, "max_pictures": 1}, {"window": 4096, "max_pictures": 5}):
        dataset = load(file, document_format, **options)
        documents = [dataset.document(Draw(i, 0, 0)) for i in range(len(dataset))]
        assert [d.length(4) for d in documents] == dataset.lengths[0].tolist()
        assert max(d.length(4) for d in documents) <= options["window"]
        assert len(documents) > 2
        trunks = [tuple(s for s in d.segments if s.branch == 0) for d in documents]
        frames = [s for trunk in trunks for s in trunk if isinstance(s, Frame)]
        assert [frame.origin.rpartition("/")[2] for frame in frames] == names
        assert max(sum(isinstance(s, Frame) for s in trunk) for trunk in trunks) <= options.get("max_pictures", 8)
        text = "".join(shown(Document(trunk, "pages"), document_format) for trunk in trunks)
        for mark in ("[read]", "[drawn]"):
            text = text.replace(mark, "")
        assert text == "<bos>" + "<boi><eoi>".join([*texts, ""]) + "<eos>"
        drawn = [s for d in documents for s in d.segments if isinstance(s, Frame) and not s.clean]
        assert len(drawn) == len(names), "each picture is drawn once"


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "lengths": ({"texts": ["a"], "images": []}, "has 1 texts and 0 images; lists of one length"),
    "nothing": ({"texts": [None], "images": [None]}, "has no text and no picture"),
    "no column": ({"body": "x"}, "has none of the columns texts, text_list or content; there are body$"),
    "an address": ({"texts": [None], "images": ["https://x/1.png"]}, "has a picture at 'https://x/1.png'; download it"),
    "a sentence": ({**MMC4, "image_info": [{"image_name": "1.png", "matched_text_index": 9}]}, "has a picture of sentence 9"),
    "no text": ({"texts": [7], "images": [None]}, "has a text that is 7; a string is expected"),
    "a part": ({"content": [{"type": "video"}]}, "has a part of the type 'video'; known are"),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_wrong_is_named_or_left_out(how: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    entry, reason = BROKEN[how]
    file = write(tmp_path / "a.jsonl", [OBELICS] * 119 + [entry])
    with pytest.raises(BrokenFile, match=f"a.jsonl' broke while being read: line 120 {reason}"):
        load(file, document_format)
    dataset = load(file, document_format, "skip")
    assert (len(dataset), dataset.skipped_at_setup) == (119, 1)


def test_bad_settings_are_said_in_one_sentence(tmp_path: Path, document_format: DocumentFormat) -> None:
    file = write(tmp_path / "a.jsonl", [OBELICS])
    with pytest.raises(Mistake, match="data.window: 9 positions cannot hold a picture, which takes 10"):
        load(file, document_format, window=9)
    with pytest.raises(Mistake, match="drawn: 2 is not a share"):
        InterleavedSource("x", drawn=2)
    with pytest.raises(Mistake, match="max_pictures: 0 is no number of pictures"):
        InterleavedSource("x", max_pictures=0)


def test_in_a_mixture(tmp_path: Path, document_format: DocumentFormat) -> None:
    entries = [{**OBELICS, "texts": ["a red cube " * (1 + i % 3), None, "the cat", None]} for i in range(40)]
    file = write(tmp_path / "a.jsonl", entries)
    check_mixture(InterleavedSource(str(file), drawn=0.5, window=128), tmp_path, document_format)

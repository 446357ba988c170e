"""Tokens that other programs have made come out as they are, and texts of CSV and .txt.gz as any other."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import pytest

from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.text import TextDataset, TextSource
from lit_mm.mistake import MissingFile, Mistake
from tests.helpers.mixed import check_mixture
from tests.helpers.token_files import PACKED, pack_mds, write_litdata, write_mds, write_megatron

DOCUMENTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [*range(20, 60)], [7]]


def load(path: Path | str, format: DocumentFormat, window: int = 16) -> TextDataset:
    dataset = TextSource(str(path), window=window).dataset("train", "tokens", format)
    assert dataset is not None
    return pickle.loads(pickle.dumps(dataset))


def windows(dataset: TextDataset) -> list[list[int]]:
    documents = [dataset.document(Draw(i, 0, 0)) for i in range(len(dataset))]
    assert [d.length(4) for d in documents] == dataset.lengths[0, :].tolist()
    return [d.segments[0].ids.tolist() for d in documents]  # type: ignore[union-attr]


FORMATS = {
    "Megatron": lambda folder: write_megatron(folder / "gpt_text_document", DOCUMENTS),
    "Megatron, .bin": lambda folder: write_megatron(folder / "a", DOCUMENTS, "<i4").with_suffix(".bin"),
    "Megatron, a pattern": lambda folder: write_megatron(folder / "a", DOCUMENTS).with_name("*.bin"),
    "Megatron, a folder": lambda folder: write_megatron(folder / "a", DOCUMENTS).parent,
    "Megatron, of sequences": lambda folder: write_megatron(folder / "a", DOCUMENTS[:3], parts=2),
    "MDS": lambda folder: write_mds(folder / "mds", DOCUMENTS),
    "MDS, any type": lambda folder: write_mds(folder / "mds", DOCUMENTS, "ndarray"),
    "MDS, bytes": lambda folder: write_mds(folder / "mds", DOCUMENTS, "bytes"),
    "MDS, zstd": lambda folder: pack_mds(write_mds(folder / "mds", DOCUMENTS), "zstd"),
    "MDS, gz": lambda folder: pack_mds(write_mds(folder / "mds", DOCUMENTS, "ndarray"), "gz"),
    "MDS, bz2": lambda folder: pack_mds(write_mds(folder / "mds", DOCUMENTS, "bytes"), "bz2"),
    "litData, zstd": lambda folder: write_litdata(folder / "lit", DOCUMENTS, "zstd"),
    "litData": lambda folder: write_litdata(folder / "lit", DOCUMENTS),
    "litData, its index": lambda folder: write_litdata(folder / "lit", DOCUMENTS) / "index.json",
}


@pytest.mark.parametrize("kind", FORMATS)
def test_tokens_come_out_as_they_are(kind: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    path = FORMATS[kind](tmp_path)
    found = windows(load(path, document_format))
    assert found[:2] == DOCUMENTS[:2]
    assert [len(one) for one in found[2:]] == [13, 13, 14], "as even as can be; a single token is left out"
    assert [i for one in found[2:] for i in one] == DOCUMENTS[2]
    assert windows(load(path, document_format, window=64)) == DOCUMENTS[:3]


def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, document_format: DocumentFormat) -> None:
    size = document_format.tokenizer.vocab_size
    dataset = load(write_megatron(tmp_path / "a", [[5, 9999]]), document_format)
    with pytest.raises(BrokenFile, match=f"a.bin' .*: it has the token 9999, but data.tokenizer has {size}; name the"):
        dataset.document(Draw(0, 0, 0))
    content = (tmp_path / "a.idx").read_bytes()
    (tmp_path / "a.idx").write_bytes(content[:-4])
    with pytest.raises(BrokenFile, match="a.idx' broke while being read: it is cut"):
        load(tmp_path / "a", document_format)
    (tmp_path / "a.idx").write_bytes(b"nothing" + content)
    with pytest.raises(BrokenFile, match="it is no index of Megatron"):
        load(tmp_path / "a", document_format)
    (tmp_path / "a.idx").write_bytes(content)
    (tmp_path / "a.bin").write_bytes(b"\x00\x00")
    with pytest.raises(BrokenFile, match="a.bin' .* it ends at byte 2, within its tokens"):
        load(tmp_path / "a", document_format)
    (tmp_path / "a.bin").unlink()
    with pytest.raises(MissingFile, match="data.train: '.*a.bin', which is a part of '.*a', is not there"):
        load(tmp_path / "a", document_format)
    folder = write_litdata(tmp_path / "lit", DOCUMENTS)
    index = json.loads((folder / "index.json").read_text())
    index["config"]["data_format"] = ["pickle"]
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(Mistake, match=r"holds items of the format \['pickle'\]; integers of litData's TokensLoader"):
        load(folder, document_format)
    (folder / "index.json").write_text("{}")
    with pytest.raises(Mistake, match="has neither the 'shards' of MDS nor the 'chunks' of litData"):
        load(folder, document_format)
    folder = write_mds(tmp_path / "mds", DOCUMENTS)
    (folder / "shard.00001.mds").write_bytes(b"\x00" * 20)
    with pytest.raises(BrokenFile, match=r"shard.00001.mds' .* it has 20 of \d+ bytes"):
        load(folder, document_format)


def test_what_its_library_has_unpacked_is_read_where_it_is(tmp_path: Path, document_format: DocumentFormat) -> None:
    folder = write_mds(tmp_path / "mds", DOCUMENTS)
    unpacked = {file.name: file.read_bytes() for file in folder.glob("*.mds")}
    pack_mds(folder, "zstd")
    for name, content in unpacked.items():
        (folder / name).write_bytes(content)
        (folder / f"{name}.zstd").write_bytes(b"")
    assert windows(load(folder, document_format, window=64)) == DOCUMENTS[:3]


def test_packed_shards_that_cannot_be_read(tmp_path: Path, document_format: DocumentFormat) -> None:
    folder = pack_mds(write_mds(tmp_path / "mds", DOCUMENTS), "zstd")
    packed = folder / "shard.00001.mds.zstd"
    content = packed.read_bytes()
    packed.write_bytes(content[:-5])
    with pytest.raises(BrokenFile, match=r"shard.00001.mds.zstd' broke while being read: "):
        load(folder, document_format)
    packed.write_bytes(PACKED["zstd"](b"\x00" * 20))
    with pytest.raises(BrokenFile, match=r"shard.00001.mds.zstd' .* it has 20 of \d+ bytes"):
        load(folder, document_format)
    packed.unlink()
    with pytest.raises(MissingFile, match=r"data.train: '.*zstd', which is a part of '.*mds', is not there"):
        load(folder, document_format)
    index = folder / "index.json"
    index.write_text(index.read_text().replace('"compression": "zstd"', '"compression": "snappy"'))
    with pytest.raises(Mistake, match="mds' is compressed with snappy; zstd, gz, bz2 or br is unpacked"):
        load(folder, document_format)
    folder = write_mds(tmp_path / "below", [[5, 6]], "ndarray")
    (shard,) = folder.glob("*0.mds")
    shard.write_bytes(shard.read_bytes()[:-4] + b"\xff" * 4)
    pack_mds(folder, "gz")
    with pytest.raises(BrokenFile, match="0.mds.gz' .*: it has the tokens -1 to 5; 32 bits from 0 on are read"):
        load(folder, document_format)


def test_texts_of_csv_and_of_compressed_files(tmp_path: Path, document_format: DocumentFormat) -> None:
    t, texts = document_format.tokenizer, ["the cat sat", "a, <eos>\n\nred cube"]
    expected = [[t.bos_id, *t.encode(text), t.eos_id] for text in texts]
    (tmp_path / "a.csv").write_text('id,text\n1,the cat sat\n2,"a, <eos>\n\nred cube"\n')
    assert windows(load(tmp_path / "a.csv", document_format)) == expected
    (tmp_path / "gz").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / f"gz/{number}.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert windows(load(tmp_path / "gz", document_format)) == expected
    (tmp_path / "gz/1.txt.gz").write_bytes(gzip.compress(texts[1].encode() * 50)[:-12])
    with pytest.raises(BrokenFile, match="1.txt.gz' broke while being read"):
        load(tmp_path / "gz", document_format)


def test_in_a_mixture(tmp_path: Path, document_format: DocumentFormat) -> None:
    write_megatron(tmp_path / "a", [[*range(20, 60 + i)] for i in range(30)])
    check_mixture(TextSource(str(tmp_path / "a"), window=32), tmp_path, document_format)

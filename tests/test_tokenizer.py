"""Any tokenizer.json with the five delimiters, whether it brings them or not."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from lit_mm.tokenizer import SPECIAL_TOKENS, Tokenizer

TEXTS = ["a cat sat on the mat", "Größe  ✓\n\ttabs", "日本語 🍓 \u200d\ufe0f", "", " ", "x=+3, y=-12.5"]


def trained(specials: tuple[str, ...]) -> HuggingFaceTokenizer:
    backend = HuggingFaceTokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(["the cat sat on the mat and the hat"] * 3, trainer)
    return backend


@pytest.fixture(params=[SPECIAL_TOKENS, (), ("<eos>", "<bos>")], ids=["all five", "none", "two"])
def brought(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[tuple[str, ...], HuggingFaceTokenizer, Path]:
    """Delimiters that a file brings, the file's tokenizer as Hugging Face's, and its path."""
    backend = trained(request.param)
    backend.save(str(tmp_path / "tokenizer.json"))
    return request.param, backend, tmp_path / "tokenizer.json"


def test_missing_delimiters_are_added_behind_the_last_id(
    brought: tuple[tuple[str, ...], HuggingFaceTokenizer, Path],
) -> None:
    specials, backend, path = brought
    ours = Tokenizer(path)
    size = backend.get_vocab_size()
    ids = dict(zip(SPECIAL_TOKENS, (ours.pad_id, ours.bos_id, ours.eos_id, ours.boi_id, ours.eoi_id), strict=True))
    assert {token: ids[token] for token in specials} == {token: backend.token_to_id(token) for token in specials}
    added = [ids[token] for token in SPECIAL_TOKENS if token not in specials]
    assert sorted(added) == list(range(size, size + 5 - len(specials)))
    assert ours.vocab_size == size + 5 - len(specials)


def test_text_is_cut_as_hugging_face_cuts_it_and_comes_back(
    brought: tuple[tuple[str, ...], HuggingFaceTokenizer, Path],
) -> None:
    _, backend, path = brought
    ours = Tokenizer(path)
    for text in TEXTS:
        assert ours.encode(text) == backend.encode(text).ids
        assert ours.decode(ours.encode(text)) == text
    assert ours.encode_batch(TEXTS) == [ours.encode(text) for text in TEXTS]


def test_a_folder_is_a_path_too(brought: tuple[tuple[str, ...], HuggingFaceTokenizer, Path]) -> None:
    _, _, path = brought
    assert Tokenizer(str(path.parent)).encode("the mat") == Tokenizer(path).encode("the mat")


def test_decoding_writes_delimiters_out_and_drops_padding(
    brought: tuple[tuple[str, ...], HuggingFaceTokenizer, Path],
) -> None:
    ours = Tokenizer(brought[2])
    ids = [ours.bos_id, *ours.encode("the cat"), ours.boi_id, ours.eoi_id, ours.eos_id]
    padded = [ours.pad_id, *ids[:3], ours.pad_id, *ids[3:], ours.pad_id, ours.pad_id]
    for given in (padded, torch.tensor(padded)):
        text = ours.decode(given)
        assert "<pad>" not in text
        assert text.replace(" ", "") == "<bos>thecat<boi><eoi><eos>"


def test_delimiters_in_a_users_text_are_text(
    brought: tuple[tuple[str, ...], HuggingFaceTokenizer, Path],
) -> None:
    ours = Tokenizer(brought[2])
    delimiters = {ours.pad_id, ours.bos_id, ours.eos_id, ours.boi_id, ours.eoi_id}
    for tokenizer in (ours, pickle.loads(pickle.dumps(ours))):  # as it travels to workers
        for text in ("a <boi> b", "<eos>", "<pad><bos><eoi>"):
            for ids in (tokenizer.encode(text), tokenizer.encode_batch([text])[0], tokenizer.ids(text).tolist()):
                assert not delimiters & set(ids)
                assert tokenizer.decode(ids) == text


def test_ids_joins_delimiters_and_strings(brought: tuple[tuple[str, ...], HuggingFaceTokenizer, Path]) -> None:
    ours = Tokenizer(brought[2])
    ids = ours.ids(ours.bos_id, "a cat", ours.boi_id)
    assert ids.dtype == torch.int64
    assert ids.tolist() == [ours.bos_id, *ours.encode("a cat"), ours.boi_id]
    assert ours.ids().shape == (0,)


def test_templates_padding_and_truncation_of_the_file_are_not_applied(tmp_path: Path) -> None:
    backend = trained(SPECIAL_TOKENS)
    plain = backend.encode("the cat sat on the mat").ids
    bos, eos = (backend.token_to_id(token) for token in ("<bos>", "<eos>"))
    backend.post_processor = processors.TemplateProcessing("<bos> $A <eos>", None, [("<bos>", bos), ("<eos>", eos)])
    backend.enable_padding(length=64)
    backend.enable_truncation(4)
    assert len(backend.encode("the cat sat on the mat").ids) == 64
    backend.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer(tmp_path)
    assert ours.encode("the cat sat on the mat") == plain
    assert ours.encode_batch(["the", "the cat sat on the mat"])[1] == plain


@pytest.mark.parametrize("content", ["", "no JSON", "{}", '{"model": {"type": "Nonsense"}}', "\ufeff[1, 2]"])
def test_a_file_that_is_no_tokenizer_is_named_in_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"^data\.tokenizer: '.*bad\.json' is not a Hugging Face tokenizer\.json"
    ) as caught:
        Tokenizer(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_named_in_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r"^data\.tokenizer: no file '.*json'; give the path of a Hugging Face"
        ):
            Tokenizer(path)

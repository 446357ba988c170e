"""The tokenizer that the recipe trains."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer as HuggingFaceTokenizer

from data_modules.recipes.tokenizer import tokenizer
from lit_mm.mistake import MissingFile, Mistake
from lit_mm.tokenizer import SPECIAL_TOKENS, Tokenizer

ACTION = "action: dx=+1.338, dy=-0.659, dyaw=+0.123, rel_t=+0.250"


@pytest.fixture(scope="module")
def trained(speech_folder: Path, drawing_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer(out, (speech_folder / "train", drawing_folder / "train"))
    return out


def test_it_has_8192_entries_delimiters_included(trained: Path) -> None:
    alone = HuggingFaceTokenizer.from_file(str(trained))
    assert [alone.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert alone.get_vocab_size() == 8192
    assert Tokenizer(trained).vocab_size == 8192


def test_any_unicode_comes_back(trained: Path) -> None:
    ours = Tokenizer(trained)
    rng = random.Random(0)
    codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    texts = ["".join(chr(c) for c in rng.choices(codes, k=rng.randrange(1, 60))) for _ in range(300)]
    texts += ["".join(rng.choices(" \n\t=+-.,:x_1é'", k=40)) for _ in range(300)]
    texts += [ACTION, "x=+3 and y_z=-12.5e-3", "1805, 2.5", " two  spaces ", "don't\r\n", "\x00", "\u200d\ufe0f", "é"]
    assert [ours.decode(ours.encode(text)) for text in texts] == texts


def test_numbers_are_cut_digit_by_digit_and_actions_are_cheap(trained: Path) -> None:
    ours = Tokenizer(trained)
    tokens = [ours.backend.id_to_token(i) for i in ours.encode(ACTION)]
    assert [token for token in tokens if any(c.isdigit() for c in token)] == list("1338065901230250")
    assert len(tokens) <= 24
    for text in ("in 1805", "123456", "x=9999", "a1b22"):
        pieces = [ours.backend.id_to_token(i) for i in ours.encode(text)]
        assert [p for p in pieces if any(c.isdigit() for c in p)] == [c for c in text if c.isdigit()]


def test_it_is_the_same_again_and_refuses_what_it_did_not_make(
    trained: Path, speech_folder: Path, drawing_folder: Path, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    texts = (speech_folder / "train", drawing_folder / "train")
    before = trained.stat()
    tokenizer(trained, texts)
    assert "is up to date" in capsys.readouterr().out
    assert trained.stat().st_mtime_ns == before.st_mtime_ns
    again = tmp_path / "tokenizer.json"
    tokenizer(again, texts)
    assert again.read_bytes() == trained.read_bytes()
    again.write_text("{}")
    with pytest.raises(Mistake, match="was changed since"):
        tokenizer(again, texts)
    mine = tmp_path / "mine.json"
    mine.write_text("{}")
    with pytest.raises(Mistake, match="was not made by this recipe"):
        tokenizer(mine, texts)
    assert mine.read_text() == "{}"


def test_too_little_text_and_missing_text_are_said(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    with pytest.raises(MissingFile, match=r"texts: no \.jsonl file in"):
        tokenizer(tmp_path / "tokenizer.json", (tmp_path / "text",))
    (tmp_path / "text" / "a.jsonl").write_text('{"text": "too little"}\n')
    with pytest.raises(Mistake, match=r"^vocab_size: 8192 entries were asked for but the text yields"):
        tokenizer(tmp_path / "tokenizer.json", (tmp_path / "text",))
    assert not (tmp_path / "tokenizer.json").exists()

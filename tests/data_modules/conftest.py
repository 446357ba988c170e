"""A tokenizer and an empty cache for the tests of the data modules."""

from __future__ import annotations

import datasets
import pytest
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from data_modules.dataset import DocumentFormat
from lit_mm.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def document_format(tmp_path_factory: pytest.TempPathFactory) -> DocumentFormat:
    """A byte-level tokenizer, pictures of 32 x 32, 4 tokens a frame."""
    backend = HuggingFaceTokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(["the cat sat on the mat", "a red cube and a blue ball"], trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    backend.save(str(path))
    return DocumentFormat(Tokenizer(path), image_size=32, tokens_per_frame=4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts with empty caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("indexes")))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()

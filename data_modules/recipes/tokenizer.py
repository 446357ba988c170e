"""A byte-level BPE tokenizer for the tiny mixture."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_modules.recipes.packages import package_versions
from data_modules.recipes.prepare import console
from lit_mm.tokenizer import SPECIAL_TOKENS

# Keys of numbers ("dx=+" and the like) are one piece and digits stand alone, so every number is cut in the same way.
# The rest is how GPT-2 cuts text.
PIECES = (
    r"(?:\w+: |, )?[a-z_]+=[+-]?(?=\d)|\p{N}"
    r"|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
CAPTION_REPEATS = 20  # captions are 1 % of the text; repeated, their words get entries of their own


def tokenizer(out: Path, texts: tuple[Path, ...], vocab_size: int = 8192) -> dict[str, int]:
    """Train a byte-level BPE tokenizer on JSON lines, and on action text.

    Args:
        out: file to make, tokenizer.json. A file beside it, tokenizer.json.made, says from what it was made.
        texts: folders whose .jsonl files hold the key "text" or "caption".
        vocab_size: entries in all, the five delimiters included.

    Raises:
        FileNotFoundError: a folder has no .jsonl file.
        FileExistsError: `out` was not made by this recipe.
        ValueError: the text is too short for so many entries.
    """
    settings = {
        "version": 1,
        "vocab_size": vocab_size,
        "text": _text_hash(texts),
        "packages": package_versions("tokenizers"),
    }
    note = out.with_name(out.name + ".made")
    if out.exists():
        if not note.is_file():
            raise FileExistsError(f"'{out}' exists but was not made by this recipe; delete it or choose another --out")
        made = json.loads(note.read_text(encoding="utf-8"))
        if made == {"settings": settings, "sha256": _hash_file(out)}:
            console.print(f"tokenizer: [bold]{out}[/] is up to date ({vocab_size:,} entries)", soft_wrap=True)
            return {"entries": vocab_size}
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(train(texts, vocab_size), encoding="utf-8")
    # The note names the file it belongs to by hash: if the run ends between these two steps, the next one starts over.
    note.write_text(json.dumps({"settings": settings, "sha256": _hash_file(partial)}) + "\n", encoding="utf-8")
    os.replace(partial, out)
    console.print(f"tokenizer: made [bold]{out}[/] ({vocab_size:,} entries)", soft_wrap=True)
    return {"entries": vocab_size}


def train(texts: tuple[Path, ...], vocab_size: int) -> str:
    """Train and return the content of a tokenizer.json."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    with console.status("tokenizer"):
        bpe.train_from_iterator(_training_text(texts), trainer)
    if bpe.get_vocab_size() != vocab_size:
        raise ValueError(f"vocab_size: {vocab_size} entries were asked for but the text yields {bpe.get_vocab_size()}")
    return bpe.to_str()


def action_strings(count: int) -> list[str]:
    """Random lines in the form of action text."""
    random = np.random.default_rng(0)
    values = random.normal(size=(count, 4)).round(3)
    return [f"action: dx={dx:+.3f}, dy={dy:+.3f}, dyaw={dyaw:+.3f}, rel_t={abs(t):+.3f}" for dx, dy, dyaw, t in values]


def _training_text(texts: tuple[Path, ...]) -> Iterator[str]:
    for file in _files(texts):
        with open(file, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if "text" in row:
                    yield row["text"]
                else:
                    for _ in range(CAPTION_REPEATS):
                        yield row["caption"]
    yield from action_strings(4096)


def _files(texts: tuple[Path, ...]) -> list[Path]:
    files = []
    for folder in texts:
        found = sorted(Path(folder).glob("*.jsonl"))
        if not found:
            raise FileNotFoundError(f"texts: no .jsonl file in '{folder}'; give folders that other recipes have made")
        files += found
    return files


def _text_hash(texts: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in _files(texts):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

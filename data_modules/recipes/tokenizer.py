"""A byte-level BPE tokenizer for the tiny mixture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from data_modules.recipes.packages import package_versions
from data_modules.recipes.prepare import alone_in, console, need_local, read_note
from lit_mm.mistake import MissingFile, Mistake
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
        MissingFile: a folder has no .jsonl file.
        Mistake: `out` was not made by this recipe, or was changed since.
        Mistake: the text is too short for so many entries.
        Mistake: another process is preparing something in the same folder.
        Mistake: `out` is a URL.
    """
    need_local(out)
    packages = package_versions("tokenizers")
    settings = {"version": 1, "vocab_size": vocab_size, "text": _text_hash(texts), "packages": packages}
    note = out.with_name(out.name + ".made")
    out.parent.mkdir(parents=True, exist_ok=True)
    with alone_in(out.parent):
        if out.exists() and _read_own(out, note) == settings:
            console.print(f"tokenizer: {out} is up to date ({vocab_size:,} entries)", markup=False, soft_wrap=True)
            return {"entries": vocab_size}
        content = train(texts, vocab_size)
        made = {"settings": settings, "sha256": hashlib.sha256(content.encode()).hexdigest()}
        # A run that is killed between these steps leaves no tokenizer.json, so the next one starts over.
        out.unlink(missing_ok=True)
        note.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        partial = out.with_name(f".{out.name}.partial")
        partial.write_bytes(content.encode())
        partial.replace(out)
    console.print(f"tokenizer: made {out} ({vocab_size:,} entries)", markup=False, soft_wrap=True)
    return {"entries": vocab_size}


def _read_own(out: Path, note: Path) -> object:
    """The settings that `out` was made with."""
    advice = "delete it or choose another --out"
    if not note.is_file():
        raise Mistake(f"'{out}' exists but was not made by this recipe; {advice}")
    made = read_note(note, ("sha256", "settings"))
    if made["sha256"] != hashlib.sha256(out.read_bytes()).hexdigest():
        raise Mistake(f"'{out}' was changed since the recipe made it; {advice}")
    return made["settings"]


def train(texts: tuple[Path, ...], vocab_size: int) -> str:
    """Train on JSON lines and on action text, and return the content of a tokenizer.json; see `tokenizer`."""
    return train_on(_training_text(texts), vocab_size, PIECES)


def train_on(texts: Iterable[str], vocab_size: int, pieces: str) -> str:
    """Train and return the content of a tokenizer.json.

    Args:
        texts: to train on.
        vocab_size: entries in all, the five delimiters included.
        pieces: regular expression of the pieces that text is cut into first; no entry is longer than one.

    Raises:
        Mistake: the text is too short for so many entries.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="isolated"),
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
        bpe.train_from_iterator(texts, trainer)
    if bpe.get_vocab_size() != vocab_size:
        raise Mistake(f"vocab_size: {vocab_size} entries were asked for but the text yields {bpe.get_vocab_size()}")
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
            raise MissingFile(f"texts: no .jsonl file in '{folder}'; give folders that other recipes have made")
        files += found
    return files


def _text_hash(texts: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in _files(texts):
        digest.update(file.read_bytes())
    return digest.hexdigest()

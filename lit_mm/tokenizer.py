"""Text tokenizer: any Hugging Face `tokenizer.json`, plus the delimiters that documents are built from."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, pre_tokenizers
from tokenizers import Tokenizer as HuggingFaceTokenizer
from torch import Tensor

from lit_mm.mistake import MissingFile, Mistake

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<boi>", "<eoi>")


class Markup(str):
    """A text of ours, not of a user: delimiters and special tokens that it names are those, see `Tokenizer.ids`."""


class Tokenizer:
    """Turns text into ids and back.

    A text never gives the id of a delimiter or of another special token: `<eos>` in it is five characters.

    Delimiters that the file lacks are added behind its last id, so `vocab_size` may be up to five more than the
    file's own count; the model's `vocab_size` has to be at least this one's (it may be larger, as a round number).

    Args:
        path: a `tokenizer.json`, or a folder that holds one.

    Raises:
        MissingFile: no such file.
        Mistake: the file is not a Hugging Face tokenizer.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.file = file = self.path / "tokenizer.json" if self.path.is_dir() else self.path
        if not file.is_file():
            raise MissingFile(f"data.tokenizer: no file '{file}'; give the path of a Hugging Face tokenizer.json")
        try:
            self.backend = HuggingFaceTokenizer.from_file(str(file))
        except Exception as error:
            raise Mistake(f"data.tokenizer: '{file}' is not a Hugging Face tokenizer.json ({error})") from error
        self.backend.no_padding()
        self.backend.no_truncation()
        self.backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
        self._fingerprint = hashlib.sha256(self.backend.to_str().encode()).hexdigest()[:16]
        ids = {token: int(self.backend.token_to_id(token)) for token in SPECIAL_TOKENS}  # type: ignore[arg-type]
        self.pad_id: int = ids["<pad>"]
        self.bos_id: int = ids["<bos>"]
        self.eos_id: int = ids["<eos>"]
        self.boi_id: int = ids["<boi>"]
        self.eoi_id: int = ids["<eoi>"]
        added = self.backend.get_added_tokens_decoder()
        self.special: dict[str, int] = {token.content: number for number, token in added.items() if token.special}
        self._markup = re.compile("|".join(map(re.escape, sorted(self.special, key=len, reverse=True))))
        self._treat_delimiters_as_text()
        self._cut_delimiters_in_texts()
        self.vocab_size: int = self.backend.get_vocab_size(with_added_tokens=True)

    def _treat_delimiters_as_text(self) -> None:
        """A user's text that says `<eos>` is text; only `ids` places delimiters."""
        self.backend.encode_special_tokens = True

    def _cut_delimiters_in_texts(self) -> None:
        """Have words cut behind the first character of a special token that a text spells out.

        Many vocabularies hold their special tokens among the others, where a word (WordLevel), the likeliest pieces
        (Unigram) or merges (BPE) find them.
        """
        cuts = [f"{re.escape(one[0])}(?={re.escape(one[1:])})" for one in self.special if len(one) > 1]
        cut = pre_tokenizers.Split(Regex("|".join(cuts)), "isolated")
        before = self.backend.pre_tokenizer
        self.backend.pre_tokenizer = cut if before is None else pre_tokenizers.Sequence([before, cut])

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._treat_delimiters_as_text()  # the one setting that the backend does not pickle

    def fingerprint(self) -> str:
        """Hash of all that ids depend on: equal fingerprints, equal ids for equal texts."""
        return self._fingerprint

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without delimiters."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of many texts at once, in parallel threads."""
        return [e.ids for e in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: list[int] | Tensor) -> str:
        """Text of `ids`, delimiters written out as `<bos>` and so on, padding left out."""
        kept = [int(i) for i in ids if int(i) != self.pad_id]
        return self.backend.decode(kept, skip_special_tokens=False)

    def ids(self, *parts: int | str) -> Tensor:
        """Ids (n,) int64 of delimiters (given as ids) and strings, in order: `ids(t.bos_id, "a cat", t.boi_id)`."""
        out: list[int] = []
        for part in parts:
            if isinstance(part, int):
                out.append(part)
            else:
                out.extend(self.markup_ids(part) if isinstance(part, Markup) else self.encode(part))
        return torch.tensor(out, dtype=torch.int64)

    def markup_ids(self, text: str) -> list[int]:
        """Ids of a text of ours, whose `<eos>`, `<|im_start|>` and other special tokens are such."""
        ids, at = list[int](), 0
        for found in self._markup.finditer(text):
            ids += [*self.encode(text[at : found.start()]), self.special[found[0]]]
            at = found.end()
        return ids + self.encode(text[at:])

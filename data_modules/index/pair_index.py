"""The index of one tar of pictures and captions: where each picture lies, and the tokens of its caption."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, Any

import numpy as np

from data_modules.index.captions import caption_in
from data_modules.index.storage import InputFile, opened
from data_modules.index.tar_samples import DamagedTar, Member, Sample, SampleGrouper, tar_members
from data_modules.reading.files import listed
from lit_mm.tokenizer import Tokenizer

PICTURES = ("jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff")  # endings, the likeliest first
BROKEN, NO_CAPTION, CUT_CAPTION, GUESSED = 1, 2, 4, 8  # flags of a sample; GUESSED captions are not UTF-8
_SHOWN = 3  # broken samples that are named
_ENDINGS = 8  # endings that are counted


@dataclass(frozen=True)
class PairFields:
    """Which members of a sample are its picture and its caption.

    Args:
        pictures: endings of pictures; the first that a sample has is taken.
        caption: ending of the member with the caption.
        path: keys that lead to the caption in that member, a JSON object; none where it is a text.
        longest: tokens to which captions are cut.
    """

    pictures: tuple[str, ...]
    caption: str
    path: tuple[str, ...]
    longest: int

    @property
    def sought(self) -> str:
        """What a tar is looked through for, in words."""
        pictures, caption = listed([f".{e}" for e in self.pictures]), ".".join([self.caption, *self.path])
        return f"there have to be pictures that end in {pictures}, and captions in .{caption}"


def fields_of_tar(image: str | None, caption: str | None, longest: int) -> PairFields:
    """What the names of columns mean in tars.

    Args:
        image: an ending, or several with `;` between them; that of any picture if it is None.
        caption: an ending, or one of JSON and a key in it such as `json.caption`; `txt` if it is None.
        longest: tokens to which captions are cut.
    """
    pictures = PICTURES if image is None else tuple(one.strip(" .").lower() for one in image.split(";"))
    ending, inside, key = (caption or "txt").partition("json.")
    path = tuple(key.split(".")) if inside else ()
    return PairFields(pictures, f"{ending}json" if inside else ending.lower(), path, longest)


@dataclass
class _Found:
    """Captions by sample, and what is said of them."""

    texts: dict[int, str] = field(default_factory=dict)
    guessed: set[int] = field(default_factory=set)
    endings: Counter[str] = field(default_factory=Counter)


def index_pairs(
    file: InputFile, fields: PairFields, tokenizer: Tokenizer
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a tar through once, without its pictures.

    Args:
        file: the tar.
        fields: what is looked for.
        tokenizer: of the captions.

    Returns:
        Arrays, a row for each sample: first those with a caption, then those without, then the broken ones, each in
        the order of the tar:
            offset: (samples,) uint64, first byte of the picture.
            size: (samples,) uint32, bytes of the picture.
            tokens: (samples,) uint16, of the caption.
            flags: (samples,) uint8, see BROKEN.
            starts: (samples,) uint32, where the caption's ids begin in `ids`.
            ids: uint16 or uint32, tokens of all captions.
        Numbers of samples: `captioned`, `bare` (without a caption), `cut`, `guessed`, and `lost`, which have no
        picture or lie beyond a damage, as many as its bytes would hold. Names: `reports`, why the first are lost, and
        `endings` of the members.

    Raises:
        OSError: the file can't be opened.
        BrokenFile: the storage does not give it.
    """
    grouper, found = SampleGrouper(), _Found()
    damage: DamagedTar | None = None
    with opened(file) as stream:
        try:
            for name, member in tar_members(stream, file.size):
                _note(stream, grouper.add(name, member), member, fields, found)
        except DamagedTar as error:
            damage = error
    pairs = [s for s in grouper.samples if s.members.keys() & {*fields.pictures, fields.caption}]
    arrays, reports = _arrays(pairs, fields, found, tokenizer)
    kind = arrays["flags"] & (BROKEN | NO_CAPTION)
    lost = int(np.count_nonzero(kind & BROKEN))
    if damage is not None:
        read = file.size - damage.unread
        lost += max(1, round(len(pairs) * damage.unread / read)) if read else 1
        reports = [damage.reason, *reports]
    counts = {
        "captioned": int(np.count_nonzero(kind == 0)),
        "bare": int(np.count_nonzero(kind == NO_CAPTION)),
        "lost": lost,
        "cut": int(np.count_nonzero(arrays["flags"] & CUT_CAPTION)),
        "guessed": int(np.count_nonzero(arrays["flags"] & GUESSED)),
    }
    return arrays, {**counts, "reports": reports, "endings": dict(found.endings.most_common(_ENDINGS))}


def _note(
    stream: IO[bytes], placed: tuple[Sample, str] | None, member: Member, fields: PairFields, found: _Found
) -> None:
    """Count a member, and read it if it holds a caption."""
    if placed is None:
        return
    sample, ending = placed
    found.endings[ending] += 1
    if ending == fields.caption:
        stream.seek(member.offset)
        text, guessed = caption_in(stream.read(member.size), fields.path)
        found.texts[id(sample)] = text
        if guessed:
            found.guessed.add(id(sample))


def _arrays(
    samples: list[Sample], fields: PairFields, found: _Found, tokenizer: Tokenizer
) -> tuple[dict[str, np.ndarray], list[str]]:
    all_ids = tokenizer.encode_batch([found.texts.get(id(sample), "") for sample in samples])
    pictures = [next((s.members[e] for e in fields.pictures if e in s.members), Member(0, 0)) for s in samples]
    flags = [
        (BROKEN if not 0 < picture.size < 1 << 32 else 0)
        | (NO_CAPTION if not ids else 0)
        | (CUT_CAPTION if len(ids) > fields.longest else 0)
        | (GUESSED if id(sample) in found.guessed else 0)
        for sample, picture, ids in zip(samples, pictures, all_ids, strict=True)
    ]
    order = sorted(range(len(samples)), key=lambda i: 4 if flags[i] & BROKEN else flags[i] & NO_CAPTION)
    broken = [i for i in order if flags[i] & BROKEN]
    ids = [all_ids[i][: fields.longest] for i in order]
    tokens = np.array([len(one) for one in ids], np.uint16)
    return {
        "offset": np.array([pictures[i].offset for i in order], np.uint64),
        "size": np.array([pictures[i].size & 0xFFFFFFFF for i in order], np.uint32),
        "tokens": tokens,
        "flags": np.array([flags[i] for i in order], np.uint8),
        "starts": (np.cumsum(tokens, dtype=np.uint64) - tokens).astype(np.uint32),
        "ids": np.fromiter(chain.from_iterable(ids), np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32),
    }, [_report(samples[i], fields) for i in broken[:_SHOWN]]


def _report(sample: Sample, fields: PairFields) -> str:
    if sample.members.keys() & set(fields.pictures):
        return f"the picture of '{sample.key}' is empty, or larger than 4 GiB"
    there = ", ".join(f".{ending}" for ending in sample.members)
    return f"'{sample.key}' has no picture ({', '.join(f'.{e}' for e in fields.pictures)}), but {there}"

"""The index of one tar of pictures and captions: where each picture lies, and the tokens of its caption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any

import numpy as np

from data_modules.index.caption_arrays import BROKEN, GUESSED, caption_arrays, counts_of
from data_modules.index.captions import caption_in, object_in
from data_modules.index.source_view import Totals
from data_modules.index.storage import InputFile, opened
from data_modules.index.tar_samples import DamagedTar, Member, Sample, SampleGrouper, tar_members
from data_modules.reading.conditions import Condition
from data_modules.reading.files import listed
from lit_mm.tokenizer import Tokenizer

PICTURES = ("jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff")  # endings, the likeliest first
_SHOWN = 3  # broken samples that are named
_ENDINGS = 8  # endings that are counted


@dataclass(frozen=True)
class PairFields:
    """Which members of a sample are its picture and its caption.

    Args:
        pictures: endings of pictures; the first that a sample has is taken.
        captions: for each caption the ending of its member, and the keys that lead to it in that member, a JSON object;
            none where it is a text. A sample that lacks one has the first that it has in its place.
        longest: tokens to which captions are cut.
        conditions: on numbers in the member `json`; samples of which one does not hold are left out.
    """

    pictures: tuple[str, ...]
    captions: tuple[tuple[str, tuple[str, ...]], ...]
    longest: int
    conditions: tuple[Condition, ...] = ()

    @property
    def read(self) -> set[str]:
        """Endings of members that are read when a tar is indexed."""
        return {ending for ending, _ in self.captions} | ({"json"} if self.conditions else set())

    @property
    def sought(self) -> str:
        """What a tar is looked through for, in words."""
        pictures = listed([f".{e}" for e in self.pictures])
        captions = listed(["." + ".".join([ending, *path]) for ending, path in self.captions])
        return f"there have to be pictures that end in {pictures}, and captions in {captions}"

    def nothing(self, path: str, totals: Totals) -> str:
        """Why there are no pairs."""
        return f"'{path}' holds no pairs: {self.sought}, but {totals.members}"


def fields_of_tar(
    image: str | None, captions: Sequence[str], longest: int, conditions: Sequence[Condition] = ()
) -> PairFields:
    """What the names of columns mean in tars.

    Args:
        image: an ending, or several with `;` between them; that of any picture if it is None.
        captions: each an ending, or one of JSON and a key in it such as `json.caption`.
        longest: tokens to which captions are cut.
        conditions: on keys of JSON, such as `json.similarity` or `similarity`.
    """
    pictures = PICTURES if image is None else tuple(one.strip(" .").lower() for one in image.split(";"))
    keys = tuple(replace(one, name=one.name.removeprefix("json.")) for one in conditions)
    return PairFields(pictures, tuple(map(_caption_field, captions)), longest, keys)


def _caption_field(name: str) -> tuple[str, tuple[str, ...]]:
    ending, inside, key = name.partition("json.")
    return (f"{ending}json", tuple(key.split("."))) if inside else (ending.lower(), ())


@dataclass
class _Found:
    """Captions by sample, and what is said of them."""

    texts: dict[int, dict[int, str]] = field(default_factory=dict)  # by number of the caption
    kept: dict[int, bool | None] = field(default_factory=dict)  # None where there is no number to compare
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
        Arrays of `caption_arrays`, the samples of each kind in the order of the tar, and besides:
            offset: (samples,) uint64, first byte of the picture.
            size: (samples,) uint32, bytes of the picture.
        Numbers of samples: `captioned`, `bare` (without a caption), `cut`, `guessed`, and `lost`, which have no
        picture or lie beyond a damage, as many as its bytes would hold; `unkept`, of which a condition does not hold,
        and of these `unknown`, which have no number for it. Names: `reports`, why the first are lost, and `endings` of
        the members.

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
    endings = {*fields.pictures, *(ending for ending, _ in fields.captions)}
    samples = [s for s in grouper.samples if s.members.keys() & endings or _hidden_picture(s, fields)]
    kept = [found.kept.get(id(s)) if fields.conditions else True for s in samples]
    pairs = [sample for sample, one in zip(samples, kept, strict=True) if one]
    arrays, reports = _arrays(pairs, fields, found, tokenizer)
    counts = counts_of(arrays["flags"])
    if damage is not None:
        read = file.size - damage.unread
        counts["lost"] += max(1, round(len(pairs) * damage.unread / read)) if read else 1
        reports = [damage.reason, *reports]
    counts |= {"unkept": len(samples) - len(pairs), "unknown": kept.count(None)}
    return arrays, {**counts, "reports": reports, "endings": dict(found.endings.most_common(_ENDINGS))}


def _note(
    stream: IO[bytes], placed: tuple[Sample, str] | None, member: Member, fields: PairFields, found: _Found
) -> None:
    """Count a member, and read it if it holds a caption."""
    if placed is None:
        return
    sample, ending = placed
    found.endings[ending] += 1
    if ending not in fields.read:
        return
    stream.seek(member.offset)
    content = stream.read(member.size)
    for number, (of, path) in enumerate(fields.captions):
        if ending == of:
            found.texts.setdefault(id(sample), {})[number], guessed = caption_in(content, path)
            if guessed:
                found.guessed.add(id(sample))
    if ending == "json" and fields.conditions:
        entry = object_in(content)
        held = [condition.holds(condition.value_in(entry)) for condition in fields.conditions]
        found.kept[id(sample)] = None if None in held else all(held)


def _arrays(
    samples: list[Sample], fields: PairFields, found: _Found, tokenizer: Tokenizer
) -> tuple[dict[str, np.ndarray], list[str]]:
    count = len(fields.captions)
    texts = [[found.texts.get(id(sample), {}).get(number, "") for number in range(count)] for sample in samples]
    pictures = [next((s.members[e] for e in fields.pictures if e in s.members), Member(0, 0)) for s in samples]
    flags = [
        (BROKEN if not 0 < picture.size < 1 << 32 else 0) | (GUESSED if id(sample) in found.guessed else 0)
        for sample, picture in zip(samples, pictures, strict=True)
    ]
    arrays, order = caption_arrays(texts, count, flags, fields.longest, tokenizer)
    arrays["offset"] = np.array([pictures[i].offset for i in order], np.uint64)
    arrays["size"] = np.array([pictures[i].size & 0xFFFFFFFF for i in order], np.uint32)
    broken = [i for i in order if flags[i] & BROKEN]
    return arrays, [_report(samples[i], fields) for i in broken[:_SHOWN]]


def _report(sample: Sample, fields: PairFields) -> str:
    if sample.members.keys() & set(fields.pictures):
        return f"the picture of '{sample.key}' is empty, or larger than 4 GiB"
    there = ", ".join(f".{ending}" for ending in sample.members)
    how = "; the name of a sample ends at its first dot" if _hidden_picture(sample, fields) else ""
    return f"'{sample.key}' has no picture ({', '.join(f'.{e}' for e in fields.pictures)}), but {there}{how}"


def _hidden_picture(sample: Sample, fields: PairFields) -> bool:
    """Whether a picture has more dots in its name than one, so that it has another ending."""
    return any(f".{ending}".endswith(tuple(f".{e}" for e in fields.pictures)) for ending in sample.members)

"""Pictures with captions: image folders, classes, JSON, Parquet, COCO, WebDataset tars, or a data set of the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from data_modules.base import DocumentDataModule
from data_modules.dataset import BrokenFile, DocumentFormat
from data_modules.index.making import missing_of
from data_modules.index.pair_index import PairFields, fields_of_tar
from data_modules.index.ranges import RangeReader
from data_modules.index.sidecars import Indexing
from data_modules.index.source_view import SourceView, Totals
from data_modules.index.storage import is_remote
from data_modules.mixing.mixture import Mixture
from data_modules.pair_dataset import CaptionShares, ImageTextDataset
from data_modules.prompting.prompt_items import PICTURE_SUFFIXES
from data_modules.reading.conditions import Condition
from data_modules.reading.cropping import CENTRE, Cropping
from data_modules.reading.files import Stamps, is_on_hub, listed, say, settle_broken, warn
from data_modules.reading.findings import note_lost
from data_modules.reading.named_pictures import pictures_alone_are_told
from data_modules.reading.pair_table import PairTable
from data_modules.reading.pairs import PairCounts, Pairs
from data_modules.reading.picture_identity import root_of
from data_modules.reading.table_files import JSON, alike
from data_modules.reading.table_pairs import TablePairs
from data_modules.source import Source, Split
from lit_mm.mistake import Mistake
from lit_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from data_modules.index.parquet_index import TableFields
    from data_modules.index.placed_pictures import PlacedPictures

TAR, PARQUET = ".tar", ".parquet"
INDEXED = (TAR, PARQUET)  # endings of files that are read where they are
SUFFIXES = (".jsonl", ".ndjson", ".csv", JSON, *INDEXED)
LONGEST = 65535  # tokens of a caption, as many as an index can say


class ImageTextSource(Source):
    """Pictures and captions; most are shown caption first (to learn to draw), the rest picture first (to describe).

    Files: a Hugging Face image folder (pictures and a metadata.jsonl or .csv with `file_name` and a caption), JSON
    Lines or CSV with the picture's path (relative to that file), Parquet with its bytes or path, or WebDataset tars;
    these two are indexed and read where they are, also from `s3://`, `https://` and other storage that fsspec knows;
    the annotations of COCO (.json); folders of pictures, one for each class (with `class_captions`). Pairs without a
    caption are left out, and their number is said.

    Args:
        train: file, folder, pattern such as `data/*.tar`, or Hub name such as `hf://owner/name`
            (`hf://owner/name/config:split` where a configuration or another split is meant).
        val: the same for validation; none by default. A Hub name without a split means its `validation`.
        image_column: column with the picture, `image` by default; image folders have it in `file_name`. In tars its
            ending such as `jpg`, or several such as `jpg;png`; any picture by default.
        caption_column: column with the caption, `caption` by default. In tars its ending, `txt` by default, or the key
            of a JSON member such as `json.caption`.
        captions: several captions of a picture, such as alt text and what a model wrote, in place of `caption_column`:
            columns (or what they are in tars), and the share of draws of each. Where a picture lacks one, the first
            that it has is shown.
        keep: conditions on numbers in columns, or in tars in the JSON member, such as `clip_score > 0.28`; pairs of
            which one does not hold are left out.
        pictures: folder that the paths of pictures are relative to; by default that of the file that names them.
        class_captions: captions of pictures that lie in a folder for each class, such as `a photo of a {}`; each
            picture has one of them for good.
        class_names: JSON file with the names of the classes by their folders; those of the folders by default.
        caption_first: share of draws with the caption before the picture, in [0, 1]; Transfusion's by default (arXiv
            2408.11039; ours: the paper has a source for each direction and states no shares).
        condition_dropout: share of the caption-first draws that lose their caption, which guidance needs (paper).
        max_caption: longer captions are cut to so many tokens.
        without_caption: what happens to pictures of tars and Parquet that have no caption: they are left out, or shown
            like those that lose theirs.
        crop: how pictures become squares (see `data_modules.reading.cropping.Cropping`); their centres by default.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        image_column: str | None = None,
        caption_column: str | None = None,
        captions: dict[str, float] | None = None,
        keep: list[str] | None = None,
        pictures: str | None = None,
        class_captions: list[str] | None = None,
        class_names: str | None = None,
        caption_first: float = 0.8,
        condition_dropout: float = 0.1,
        max_caption: int = 128,
        without_caption: Literal["leave_out", "unconditional"] = "leave_out",
        crop: Cropping = CENTRE,
    ) -> None:
        super().__init__()
        for name, share in {"caption_first": caption_first, "condition_dropout": condition_dropout}.items():
            if not 0 <= share <= 1:
                raise Mistake(f"{name}: {share} is not a share; give a number from 0 to 1")
        if not 1 <= max_caption <= LONGEST:
            raise Mistake(f"max_caption: {max_caption} tokens; give 1 to {LONGEST}")
        self.paths: dict[Split, str | None] = {"train": train, "val": val}
        self.conditions = [Condition.parse(one, "keep") for one in keep or ()]
        given = _captions(captions, caption_column)
        in_tars = list(given or {"txt": 1.0})
        self.tar_fields: PairFields = fields_of_tar(image_column, in_tars, max_caption, self.conditions)
        self.image_column = image_column or "image"
        self.caption_columns = tuple(given or {"caption": 1.0})
        self.folder = None if pictures is None else Path(pictures).expanduser()
        self.class_captions, self.class_names = (
            class_captions,
            None if class_names is None else Path(class_names).expanduser(),
        )
        drawn = (caption_first * (1 - condition_dropout), caption_first * condition_dropout, 1 - caption_first)
        self.shares = CaptionShares(*drawn, tuple((given or {"": 1.0}).values()))
        self.max_caption = max_caption
        self.without_caption, self.crop = without_caption, crop

    @property
    def table_fields(self) -> TableFields:
        """What is read of Parquet."""
        from data_modules.index.parquet_index import TableFields

        return TableFields(self.image_column, self.caption_columns, self.max_caption, tuple(self.conditions))

    def dataset(self, split: Split, source: str, format: DocumentFormat) -> ImageTextDataset | None:
        """Pairs of one split; captions are tokenized once, pictures are read when drawn."""
        path = self.paths[split]
        if path is None:
            return None
        key = f"{self.key}.{split}"
        self.crop.check(f"{self.key}.crop", format.image_size)
        indexing = self.indexing(split, format.tokenizer)
        if indexing is not None:
            pairs: Pairs = self._indexed(path, split, indexing, format)
        else:
            pairs = self._tables(path, split, format)
        pairs.pictures.root = root_of(path)
        if cut := pairs.counts.cut:
            say("%s: %d of %d captions are cut to %d tokens (max_caption)", key, cut, len(pairs), self.max_caption)
        return ImageTextDataset(source, pairs, self.shares, format)

    def _cropping(self, split: Split) -> Cropping:
        return self.crop if split == "train" else self.crop.held_out

    def indexing(self, split: Split, tokenizer: Tokenizer) -> Indexing | None:
        """The indexes of one split where it is in tars or Parquet, and what makes them."""
        from data_modules.index.indexed_pairs import pair_sidecars

        path, key = self.paths[split], f"{self.key}.{split}"
        if path is None or self.class_captions or is_on_hub(path, INDEXED):
            return None
        with pictures_alone_are_told(path):
            files = self.listing.find(path, INDEXED if is_remote(path) else SUFFIXES, key, PICTURE_SUFFIXES)
        kinds = {_format(file.path) for file in files}
        if len(kinds) > 1:
            raise Mistake(
                f"{key}: '{path}' holds {listed(sorted(kinds), 'and')}; name those of one format with a pattern"
            )
        if kinds == {"tars"}:
            return pair_sidecars(files, self.tar_fields, tokenizer, self.cache)
        if kinds != {"Parquet"}:
            return None
        indexing = pair_sidecars(files, self.table_fields, tokenizer, self.cache)
        if missing_of(indexing.sidecars[:1]):
            self.table_fields.check(files[0], key)
        return indexing

    def _indexed(self, path: str, split: Split, indexing: Indexing, format: DocumentFormat) -> Pairs:
        from data_modules.index.indexed_pairs import IndexedPairs, open_pairs

        key = f"{self.key}.{split}"
        unconditional = self.without_caption == "unconditional"
        view = open_pairs(indexing, unconditional, self.cache, key)
        totals = view.totals
        if totals.report is not None:
            everything = totals.captioned + totals.bare + totals.lost
            settle_broken(BrokenFile(*totals.report), totals.lost, everything, key, self.tolerance)
        if totals.bare and len(view):
            done = "shown without one" if unconditional else "left out"
            pairs = totals.captioned + totals.bare
            warn("%s: %d of %d pairs have no caption and are %s", key, totals.bare, pairs, done)
            note_lost("without a caption", 0 if unconditional else totals.bare)
        self._say_unkept(path, totals, key)
        if totals.guessed:
            warn("%s: %d captions are not UTF-8 and are read as Latin-1", key, totals.guessed)
        fields, pictures = self._placed_pictures(view, split, format)
        if not len(view):
            raise Mistake(f"{key}: {fields.nothing(path, totals)}")
        return IndexedPairs(view, pictures)

    def _placed_pictures(
        self, view: SourceView, split: Split, format: DocumentFormat
    ) -> tuple[PairFields | TableFields, PlacedPictures]:
        from data_modules.index.parquet_files import RowGroups
        from data_modules.index.placed_pictures import ParquetPictures, TarPictures

        ranges, size, cropping = RangeReader(self.range_cache), format.image_size, self._cropping(split)
        if _format(view.sidecars[0].file.path) == "tars":
            return self.tar_fields, TarPictures(view, size, ranges, cropping)
        fields = self.table_fields
        return fields, ParquetPictures(view, size, RowGroups(ranges), fields, self.folder, cropping)

    def _say_unkept(self, path: str, totals: Totals, key: str) -> None:
        names = listed([one.name for one in self.conditions], "and") if self.conditions else ""
        if totals.unknown and totals.unknown == totals.captioned + totals.bare + totals.unkept:
            raise Mistake(f"{key} (keep): no pair of '{path}' has a number in {names}; name one that is there")
        if totals.unkept:
            total = totals.captioned + totals.bare + totals.unkept
            lacking = f", {totals.unknown} of them without a number in {names}" if totals.unknown else ""
            warn("%s: %d of %d pairs are left out by keep%s", key, totals.unkept, total, lacking)

    def _tables(self, path: str, split: Split, format: DocumentFormat) -> Pairs:
        key = f"{self.key}.{split}"
        parts, stamps, skipped = self._parts(path, split, key)
        tokenized = [part.tokenize(format.tokenizer, self.max_caption, key) for part in parts]
        total = sum(len(part.rows) for part in tokenized)
        if not total:
            raise Mistake(f"{key}: '{path}' holds no pairs")
        captioned = sum(int(np.count_nonzero(part.lengths[0])) for part in tokenized)
        if not captioned:
            columns = listed([f"'{column}'" for column in self.caption_columns])
            raise Mistake(f"{key}: none of the {total} pairs of '{path}' has a caption in {columns}")
        if uncaptioned := total - captioned - sum(part.lost for part in tokenized):
            warn("%s: left out %d of %d pairs, which have no caption", key, uncaptioned, total)
            note_lost("without a caption", uncaptioned)
        counts = PairCounts(skipped, uncaptioned, sum(part.cut for part in tokenized))
        return TablePairs(tokenized, format.image_size, counts, stamps, self._cropping(split))

    def _parts(self, path: str, split: Split, key: str) -> tuple[list[PairTable], Stamps, int]:
        from data_modules.index.parquet_index import FILE_NAME
        from data_modules.reading.class_folders import class_rows
        from data_modules.reading.coco import coco_rows
        from data_modules.reading.kept_rows import kept_rows
        from data_modules.reading.records import check_column, load_hub, load_records

        if self.class_captions:
            folder = Path(path).expanduser()
            rows = class_rows(folder, self.class_captions, self.class_names, key, self.listing)
            return [PairTable(rows, "image", ("caption",), [folder], folder=folder)], (), 0
        if is_on_hub(path, INDEXED):
            rows = load_hub(path, "train" if split == "train" else "validation", key)
            for column in (self.image_column, *self.caption_columns):
                check_column(rows, column, f"'{path}'", key)
            rows = kept_rows(rows, ((path, 0, 0),), self.conditions, key, rows)
            return [PairTable(rows, self.image_column, self.caption_columns, [Path(path)])], (), 0
        parts: list[PairTable] = []
        skipped = 0
        stamps = self.listing.stamps(path, SUFFIXES, key, PICTURE_SUFFIXES)
        for ending, image, some in alike(stamps, self.image_column, FILE_NAME):
            files = [Path(file) for file, _, _ in some]
            if ending == JSON:
                rows = coco_rows(some, key)
                parts.append(PairTable(rows, "image", ("caption",), files, folder=self.folder))
                continue
            columns = (image, *self.caption_columns)
            named = image if self.folder is None else None
            rows, left_out = load_records(some, columns, key, self.tolerance, optional=columns[1:], paths=named)
            rows = kept_rows(rows, some, self.conditions, key)
            lost = 0 if self.conditions else left_out
            parts.append(PairTable(rows, image, self.caption_columns, files, lost, self.folder))
            skipped += left_out
        return parts, stamps, skipped


class ImageTextDataModule(DocumentDataModule):
    """Pictures and captions alone, see `ImageTextSource`."""

    def mix(self, **mixed: Any) -> Mixture:
        """The source, of these arguments."""
        return Mixture.of_one(ImageTextSource(**mixed))


def _format(path: str) -> str:
    """How files of a kind are called together."""
    kinds = {TAR: "tars", PARQUET: "Parquet"}
    return next((kind for ending, kind in kinds.items() if path.lower().endswith(ending)), "tables")


def _captions(given: dict[str, float] | None, column: str | None) -> dict[str, float] | None:
    """Shares by column; None where nothing is said."""
    if given is None:
        return None if column is None else {column: 1.0}
    if column is not None or not given or min(given.values()) < 0 or sum(given.values()) <= 0:
        raise Mistake(
            f"captions: {given} with caption_column: {column}; give one of them, captions with shares such as "
            "{txt: 0.5, json.recaption: 0.5}"
        )
    return {name: share / sum(given.values()) for name, share in given.items()}

"""Judging visual tokenizers: `lit-mm validate --config configs/experiment/tokenizers.yaml`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from data_modules.base import DocumentDataModule
from data_modules.mixing.rows import Share, ValidationRows
from data_modules.source import Split
from lit_mm.frozen import freeze
from lit_mm.mistake import Mistake
from lit_mm.sequence import PackedBatch
from lit_mm.training.metrics import SourceMeans
from lit_mm.training.run_folder import run_folder
from lit_mm.vision.base import VisualTokenizer
from lit_mm.vision.dual import Dual
from lit_mm.vision.metrics.quality import picture_quality
from lit_mm.vision.rae import Rae
from lit_mm.vision.training.pairs import caption_pairs
from lit_mm.vision.training.probe import ProbeResult, linear_probe

FILE = "tokenizers.json"
ENCODE_AT_ONCE = 256  # pictures
LONGEST_LABEL = 32  # tokens
SHOWN = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "probe_accuracy": "probe",
    "probe_balanced_accuracy": "probe, balanced",
}
SHOWN_ERROR = "probe_standard_error"
FORMATS = {"psnr": ".1f"}


class LitTokenizerProbe(pl.LightningModule):
    """Compares visual tokenizers on held-out pictures; nothing is trained but linear probes.

    For each tokenizer and source, PSNR (dB) and SSIM of `decode(encode(pictures))`. For each source in `labelled`,
    whose captions are taken as labels (`caption_column: group`), the accuracy of a linear probe on the mean over a
    picture's tokens, as they are read: trained on the source's training pictures, tested on its held-out ones.

    The table is printed and written to `tokenizers.json` in the run folder.

    Args:
        vision: the tokenizers by the names they are shown under; all for pictures of one size.
        labelled: sources whose captions are labels.

    Raises:
        Mistake: there are no tokenizers, or their pictures differ in size.
    """

    def __init__(self, vision: dict[str, VisualTokenizer], labelled: list[str]) -> None:
        super().__init__()
        sizes = {name: tokenizer.image_size for name, tokenizer in vision.items()}
        if len(set(sizes.values())) != 1:
            raise Mistake(f"model.vision needs tokenizers for pictures of one size; found {sizes or 'none'}")
        self.vision = freeze(torch.nn.ModuleDict(vision))
        self.labelled = labelled
        self.image_size = next(iter(sizes.values()))
        self.tokens_per_frame = 1  # no token is read from a row here
        self.means = SourceMeans()
        self.validation_results: dict[str, float] = {}

    def tokenizers(self) -> Mapping[str, VisualTokenizer]:
        """Those that are compared, by name."""
        return dict(self.vision.items())  # type: ignore[arg-type]

    def validation_step(self, batch: PackedBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Draw the batch's pictures through every tokenizer that can."""
        if len(batch.frames) == 0:
            return
        images = batch.frames / 255
        for name, tokenizer in self.tokenizers().items():
            if can_draw(tokenizer):
                drawn = tokenizer.decode(tokenizer.encode(batch.frames)) / 255
                for metric, values in zip(("psnr", "ssim"), picture_quality(drawn, images), strict=True):
                    self.means.add(f"{name}/{metric}", values, batch.frame_source_ids, batch.sources)

    def on_validation_epoch_end(self) -> None:
        """Fit the probes, print and write the table. Results are named `val/<source>/<tokenizer>/<metric>`."""
        means = self.means.compute()
        results = {f"val/{source}/{name}": value for (source, name), value in means.items()}
        for source in self.labelled:
            for name, found in self._probe(source).items():
                results |= {f"val/{source}/{name}/probe_{k}": v for k, v in asdict(found).items()}
        self.validation_results = results
        self.log_dict(results, rank_zero_only=True)
        # Asked for on every rank: the first one tells the others.
        folder = run_folder(self.trainer) or Path(self.trainer.default_root_dir)
        if self.trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / FILE).write_text(json.dumps(results, indent=2) + "\n", encoding="utf8")
            Console().print(results_table(results))
            Console().print(f"written to {folder / FILE}", highlight=False)

    def _probe(self, source: str) -> dict[str, ProbeResult]:
        """Every process does the same, so that nothing has to be gathered."""
        train, val = (self._labelled_pictures(split, source) for split in ("train", "val"))
        labels = torch.cat([train[1], val[1]]).unique(dim=0, return_inverse=True)[1]
        train_labels, val_labels = labels.split([len(train[1]), len(val[1])])
        found = {}
        for name, tokenizer in track(self.tokenizers().items(), f"probes of {source}", transient=True):
            features = [self._mean_tokens(tokenizer, pictures) for pictures, _ in (train, val)]
            found[name] = linear_probe(features[0], train_labels, features[1], val_labels)
        return found

    def _labelled_pictures(self, split: Split, source: str) -> tuple[Tensor, Tensor]:
        """Pictures and labels of one split in the order of the files; a picture that is listed often counts once."""
        data: DocumentDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        reader = data.reader(split)
        if source not in reader.datasets:
            raise Mistake(
                f"model.labelled names '{source}', but data has no '{split}' pictures of it; it has "
                f"{', '.join(reader.datasets)}"
            )
        rows = ValidationRows(reader, source, Share(rank=0, ranks=1, rows=1), documents=None)
        kept: dict[bytes, tuple[Tensor, Tensor]] = {}
        for batch in track(rows, f"reading {source}", transient=True):
            pairs = caption_pairs(batch, LONGEST_LABEL)
            for picture, label in zip(pairs.images, pairs.captions, strict=True):
                key = sha256(picture.numpy()).digest() + label.numpy().tobytes()
                kept.setdefault(key, (picture.clone(), label))
        images, labels = zip(*kept.values(), strict=True)
        return torch.stack(images), torch.stack(labels)

    def _mean_tokens(self, tokenizer: VisualTokenizer, images: Tensor) -> Tensor:
        """(P, channels) on the CPU: the mean over the tokens by which each picture is read."""
        parts = images.split(ENCODE_AT_ONCE)
        return torch.cat([tokenizer.read(part.to(self.device)).mean(1).cpu() for part in parts])


def can_draw(tokenizer: VisualTokenizer) -> bool:
    """Whether it has a decoder; an encoder alone is a tokenizer that only reads."""
    drawing = tokenizer.drawer if isinstance(tokenizer, Dual) else tokenizer
    return not (isinstance(drawing, Rae) and drawing.decoder is None)


def results_table(results: Mapping[str, float]) -> Table:
    """One row per tokenizer, one column per source and metric."""
    cells = {tuple(key.split("/")[1:]): value for key, value in results.items()}
    columns = list(dict.fromkeys((source, metric) for source, _, metric in cells if metric in SHOWN))
    shown = Table("tokenizer", *(f"{source} {SHOWN[metric]}" for source, metric in columns), title="held-out pictures")
    for name in dict.fromkeys(name for _, name, _ in cells):
        found = ((metric, cells.get((source, name, metric))) for source, metric in columns)
        shown.add_row(
            name, *("" if value is None else f"{value:{FORMATS.get(metric, '.3f')}}" for metric, value in found)
        )
    for source in dict.fromkeys(source for source, _, metric in cells if metric == "probe_majority"):
        name = next(name for where, name, metric in cells if where == source and metric == "probe_majority")
        majority, chance = cells[source, name, "probe_majority"], cells[source, name, "probe_chance"]
        error = max(value for (where, _, metric), value in cells.items() if where == source and metric == SHOWN_ERROR)
        said = f"{source}: the most frequent label alone is right {majority:.3f} of the time, {chance:.3f} balanced; "
        said += f"the standard error of a probe is up to {error:.3f}"
        shown.caption = f"{shown.caption}\n{said}" if shown.caption else said
    return shown

"""What every data module has in common: shared settings, a train loader of packed rows, one validation loader each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from data_modules.dataset import DocumentDataset, DocumentFormat
from data_modules.index.listing import Listing
from data_modules.index.sidecars import Indexing
from data_modules.mixing.left_out import LeftOut
from data_modules.mixing.loaders import LoaderConfig, StepLoader, TimedLoader, start_worker
from data_modules.mixing.promises import check_lengths
from data_modules.mixing.rows import RowReader, Share, TrainingRows, ValidationRows
from data_modules.mixing.stages import Stage
from data_modules.mixing.together import is_distributed, together
from data_modules.prompting.loader import prompt_loader
from data_modules.prompting.template import Template
from data_modules.reading.findings import Findings, gathered
from data_modules.reading.picture_source import PictureReader
from lit_mm.mistake import Mistake
from lit_mm.sequence import PackedBatch
from lit_mm.tokenizer import Tokenizer

Split = Literal["train", "val"]
STAGES: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "predict": ()}


class DocumentDataModule(LightningDataModule, ABC):
    """Packed rows of one source, or of a mixture of sources.

    The place in the data is exact: a checkpoint stores where the plan stood after the last row that was trained on,
    and a resumed run goes on with the next row, on any number of ranks and workers.

    Args:
        tokenizer: path of a Hugging Face tokenizer.json, or of the folder that holds it. Inside a mixture, the
            mixture's is used.
        loader: how documents become batches. Inside a mixture, the mixture's is used.
        image_size: side of a picture in pixels; linked from the model's visual tokenizer.
        tokens_per_frame: visual tokens of a picture; linked from the model's visual tokenizer.
        prompts: what predict is asked: a YAML list, JSON lines, a folder of pictures, or `-` for standard input (see
            `data_modules.prompting.prompts`).
        steering: YAML file that says what keys in the prompts' actions do (see `data_modules.prompting.steering`);
            without it they are texts.
        template: how turns of conversations are written down (see `data_modules.prompting.template`), also in prompts
            of the kind `answer`. Inside a mixture, the mixture's is used.

    Attributes:
        key: of this module in the configuration, for messages.
    """

    key = "data"

    def __init__(
        self,
        tokenizer: str | None = None,
        loader: LoaderConfig | None = None,
        image_size: int = 0,
        tokens_per_frame: int = 0,
        prompts: str | None = None,
        steering: str | None = None,
        template: Template | None = None,
    ) -> None:
        super().__init__()
        self.prompts, self.steering, self.template = prompts, steering, template or Template()
        self.tokenizer_path = tokenizer
        self._use(loader or LoaderConfig())
        self.image_size = image_size
        self.tokens_per_frame = tokens_per_frame
        self.listing = Listing()
        self.format: DocumentFormat | None = None
        self.datasets: dict[Split, dict[str, DocumentDataset]] = {}
        self.latents: dict[Split, dict[str, PictureReader]] = {}  # of sources whose pictures were encoded before
        self.findings: dict[tuple[Split, str], Findings] = {}  # of every source that is open
        self.plan_state: dict[str, Any] = {}
        self.left_out = LeftOut(self.loader.max_lost)
        self.refused: Mistake | None = None  # when it was prepared

    def join(self, mixture: DocumentDataModule, key: str) -> None:
        """Be a source of a mixture, whose loader, template and listing of files are those of all its sources.

        Args:
            mixture: which.
            key: of this module in the configuration.
        """
        self.key, self.template, self.listing = key, mixture.template, mixture.listing
        self._use(mixture.loader)

    def _use(self, loader: LoaderConfig) -> None:
        self.loader, self.tolerance = loader, loader.tolerance
        self.cache, self.range_cache = loader.folder, loader.range_cache

    @abstractmethod
    def dataset(self, split: Split, source: str, format: DocumentFormat) -> DocumentDataset | None:
        """Documents of one split; None where there is no such split.

        Args:
            split: which one.
            source: the name that documents carry and metrics are logged under.
            format: tokenizer, picture size and tokens of a frame of this run.
        """

    def indexing(self, split: Split, tokenizer: Tokenizer) -> Indexing | None:
        """Indexes that a split needs, and what makes them; None of files that are read without an index.

        Args:
            split: which one.
            tokenizer: of its texts.
        """
        return None

    @property
    def source_name(self) -> str:
        """Name of the source when the module works alone: that of its file, `text`, `image_text` and so on."""
        return type(self).__module__.rpartition(".")[2]

    def modules(self) -> Mapping[str, DocumentDataModule]:
        """The data modules behind each source; a mixture has several."""
        return {self.source_name: self}

    def source_weights(self) -> Mapping[str, float]:
        """Share of tokens of each source."""
        return {self.source_name: 1.0}

    def source_stages(self) -> Sequence[Stage]:
        """Other shares that come before those."""
        return ()

    def prepare_data(self) -> None:
        """Read and tokenize on one process of each node first, so that the others find the caches made.

        Nodes that share the cache share the work: one makes what the others wait for. Of several processes none is
        left waiting: what is a mistake here ends all of them in `setup`.
        """
        try:
            self._open_all((self.trainer and self.trainer.state.fn) or "fit")
        except Mistake as error:
            if not is_distributed():
                raise
            self.refused = error

    def setup(self, stage: str) -> None:
        """Open every source that the stage reads and check that all of its documents fit a row.

        Raises:
            Mistake: on all processes, where one of them has found it.
        """
        with together():
            if self.refused is not None:
                raise self.refused
        if self.listing.agree():
            self.datasets.clear()
        with together():
            self._open_all(stage)

    def _open_all(self, stage: str) -> None:
        if self.tokenizer_path is None:
            raise Mistake("data.tokenizer is missing: give the path of a Hugging Face tokenizer.json")
        if self.format is None:
            self.format = DocumentFormat(Tokenizer(self.tokenizer_path), self.image_size, self.tokens_per_frame)
        if self.format.bracketed_frames(1) + 2 > self.loader.row_length:
            raise Mistake(
                f"data.loader.row_length is {self.loader.row_length}, which cannot hold one frame: it takes "
                f"{self.format.bracketed_frames(1) + 2} positions with its delimiters"
            )
        self.loader.apply()
        for split in STAGES[stage]:
            self.open(split)

    def open(self, split: Split) -> dict[str, DocumentDataset]:
        """Documents of one split by source; they are opened when they are first asked for.

        Raises:
            BrokenFile, Mistake: a source of it cannot be used.
        """
        assert self.format is not None, "setup() was not called"
        if split not in self.datasets:
            opened = {}
            for name, module in self.modules().items():
                with gathered() as findings:
                    dataset = module.dataset(split, name, self.format)
                if dataset is not None:
                    self.findings[split, name] = findings
                    check_lengths(name, dataset)
                    self._check_longest(name, dataset)
                    opened[name] = dataset
            self.datasets[split] = opened
        return self.datasets[split]

    def _check_longest(self, name: str, dataset: DocumentDataset) -> None:
        longest = dataset.longest
        if not dataset.splittable and longest > self.loader.row_length:
            raise Mistake(
                f"data.loader.row_length is {self.loader.row_length}, but source '{name}' has a document of "
                f"{longest} positions that cannot be split; make rows at least that long or its documents shorter"
            )

    def reader(self, split: Split) -> RowReader:
        """What turns planned rows of a split into batches."""
        latents = self.latents.get(split, {})
        datasets = {name: d.with_latents(latents.get(name)) for name, d in self.open(split).items()}
        assert self.format is not None
        return RowReader(datasets, self.format, self.loader.row_length, self.loader.on_error)

    def _share(self) -> Share:
        trainer = self.trainer
        rank, ranks = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return Share(rank, ranks, self.loader.rows)

    def training_rows(self) -> TrainingRows:
        """The endless training batches of this rank, from where the last run stopped."""
        weights, stages = self.source_weights(), self.source_stages()
        rows = TrainingRows(
            self.reader("train"), weights, self.loader.seed, self._share(), {}, stages, self.loader.window
        )
        if self.plan_state:
            for sentence in rows.planner().load_state(self.plan_state):
                rank_zero_info(f"resumed data: {sentence}")
            rows.state = self.plan_state
        return rows

    def train_dataloader(self) -> DataLoader:
        """Packed rows without end."""
        micro_batches = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        workers = self.loader.workers
        loader = StepLoader(
            self.training_rows(),
            **self._loading(workers),
            prefetch_factor=max(2, -(-micro_batches // workers)) if workers else None,  # a step's are read at once
            persistent_workers=workers > 0,
        )
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> list[DataLoader]:
        """One loader per source, always the same documents in the same order."""
        reader, share, documents = self.reader("val"), self._share(), self.loader.val_documents
        # Validation reads briefly and often: one worker is enough and starts faster.
        options = self._loading(min(1, self.loader.workers))
        return [TimedLoader(ValidationRows(reader, name, share, documents), **options) for name in reader.datasets]

    def predict_dataloader(self) -> DataLoader:
        """What predict is asked."""
        return prompt_loader(self.prompts, self.image_size, self.steering, self.template, self.trainer)

    def _loading(self, workers: int) -> dict[str, Any]:
        return {
            "batch_size": None,
            "num_workers": workers,
            "pin_memory": torch.cuda.is_available(),  # from such memory a GPU copies batches while it computes
            "worker_init_fn": partial(start_worker, self.loader) if workers else None,
        }

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Without waiting for what the device is doing, as Lightning would."""
        if isinstance(batch, PackedBatch):
            return batch.to(device, non_blocking=True)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: PackedBatch, dataloader_idx: int) -> PackedBatch:
        """Note where the plan stands once this batch is trained on, and count documents that broke."""
        if isinstance(batch, PackedBatch):
            self.left_out.say_first(batch.skipped)
        if self.trainer is not None and self.trainer.training:
            before, self.plan_state = self.plan_state.get("sources", {}), batch.plan_state
            if self.loader.on_error == "skip":
                self.left_out.count(batch.skipped, _newly_drawn(before, batch.plan_state["sources"]))
                # Adding up over ranks waits for the device, so it is done on steps that log.
                interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
                if self.trainer.world_size == 1 or self.trainer.global_step % interval == 0:
                    self.left_out.judge(batch.tokens.device)
        return batch

    def teardown(self, stage: str) -> None:
        """Say what was left out."""
        self.left_out.say_all()

    def state_dict(self) -> dict[str, Any]:
        """Where the plan stands and what was left out, the same on every rank."""
        return {"plan": self.plan_state, "skipped": dict(self.left_out.counts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint; differences in the mixture are said in the log, never silent."""
        self.plan_state = state_dict["plan"]
        self.left_out.counts = Counter(state_dict["skipped"])


def _newly_drawn(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, int]:
    """Documents of each source drawn from one plan state to a later one; a source may have started again."""
    starts = {name: before.get(name, {"next": 0})["next"] for name in now}
    return {name: s["next"] - (starts[name] if starts[name] <= s["next"] else 0) for name, s in now.items()}

"""`lit-mm fit | validate | predict`: LightningCLI with data, model and all their parts chosen in YAML."""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.graceful_stop import GracefulStop
from callbacks.pages.prediction_writer import PredictionWriter
from callbacks.weight_averaging import WeightAveraging
from lit_mm.command_line.checkpoint_config import with_checkpoint_config
from lit_mm.command_line.commands import COMMANDS, DESCRIPTION, ENDS, completed_help
from lit_mm.command_line.config_files import check_configs, in_configs
from lit_mm.command_line.constructors import in_constructors
from lit_mm.command_line.dry_run import Run, report
from lit_mm.command_line.local_folders import check_local
from lit_mm.command_line.mistakes import check_start
from lit_mm.command_line.packaged import find_packaged_configs, packaged_arguments
from lit_mm.command_line.parser import ConfigParser
from lit_mm.command_line.printed_rows import print_rows
from lit_mm.command_line.run_folder import new_folder, new_without_logger
from lit_mm.command_line.save_config import SaveConfig
from lit_mm.command_line.terminal import write_anywhere
from lit_mm.command_line.trainer_callbacks import completed_callbacks
from lit_mm.command_line.trainer_checks import MonitorCheck, check_processes, check_values, in_trainer, usable_precision
from lit_mm.mistake import Mistake, killed_worker, lost_process, mistake_in, notes_of, refused_by_system
from lit_mm.parallel.checkpoint_files import CheckpointFiles
from lit_mm.parallel.strategy import refuse_fsdp1
from lit_mm.training.stopping import Stopped, stopped_by_signals

REPORT = "This looks like a fault of lit-mm: please report it, with all lines above and the config.yaml of the run."


class LitCLI(LightningCLI):
    """The program.

    `--ckpt_path FILE` alone is a complete configuration: what the checkpoint was trained with is read as if it were
    the first `--config`, so any later file or command-line value wins over it.
    """

    def __init__(self, args: list[str] | None = None, run: bool = True) -> None:
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=ConfigParser,
            parser_kwargs={"parser_mode": "omegaconf", "description": DESCRIPTION},
            args=args,
            run=run,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's, without `test`: no data set here has a third split."""
        return {name: skipped for name, skipped in LightningCLI.subcommands().items() if name != "test"}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Pictures are as large, and take as many tokens, as the model's visual tokenizer says."""
        parser.link_arguments("model.image_size", "data.init_args.image_size", apply_on="instantiate")
        parser.link_arguments("model.tokens_per_frame", "data.init_args.tokens_per_frame", apply_on="instantiate")
        parser.add_argument(
            "--print_rows", type=int, default=0, metavar="ROWS", help="show so many packed rows as text, then stop"
        )
        parser.add_argument(
            "--first_row", type=int, default=None, help="number of the first of them; that of --ckpt_path's next, or 0"
        )

        parser.add_argument(
            "--dry_run", type=bool, default=False, help="say what the run would take on all its devices, then stop"
        )

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        """Lightning's commands, with the first line of their help in our words."""
        super()._add_subcommands(parser, **{name: {"description": text} for name, text in COMMANDS.items()} | kwargs)
        (commands,) = (action for action in parser._actions if isinstance(action.choices, dict))
        for command in commands._choices_actions:  # type: ignore[attr-defined]
            command.help = COMMANDS[command.dest]

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.epilog = ENDS[subcommand]
        if subcommand == "validate":
            parser.set_defaults(verbose=False)  # callbacks.pages.results_table shows the results source by source
        if subcommand == "predict":
            parser.add_argument("--json", action="store_true", help="print a line of JSON for every answer, not text")
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Put the checkpoint's own configuration before everything that was given."""
        given = list(sys.argv[1:] if args is None else args) if not isinstance(args, dict | Namespace) else args
        with tempfile.TemporaryDirectory() as folder, in_configs():
            if isinstance(given, list):
                find_packaged_configs()
                given = completed_help(packaged_arguments(given))
                check_start(given)
                if given and given[0] in (commands := getattr(self, "_subcommand_parsers", {})):
                    check_configs(given, commands[given[0]])
                given = with_checkpoint_config(given, Path(folder))
            super().parse_arguments(parser, given)

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise Mistake(f"seed_everything: {error}") from error

    def instantiate_classes(self) -> None:
        """Lightning's; what a class refuses, and an error within a user's own file, are mistakes."""
        with in_constructors():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Lightning's, which also reads checkpoints that many processes wrote, unless another plugin reads them.

        A dry run has no use for one, whose devices need not be there.
        """
        if self._get(self.config, "dry_run"):
            return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        given = self._get(self.config_init, "trainer", default={})
        refuse_fsdp1(given.get("strategy"))
        plugins = given.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins = [*plugins, CheckpointFiles()]
        check_values(given)
        check_local(self._get(self.config, "trainer"))
        with in_trainer():
            folder = given.get("default_root_dir") or (new_without_logger() if given.get("logger") is False else "runs")
            kwargs |= completed_callbacks(given) | {"plugins": plugins, "default_root_dir": folder}
            kwargs["callbacks"] = [MonitorCheck(), *kwargs["callbacks"]]
            kwargs |= usable_precision(given)
            if not any(isinstance(callback, GracefulStop) for callback in given.get("callbacks") or ()):
                kwargs["callbacks"].append(GracefulStop())  # last: the others are through with a step by then
            trainer = super().instantiate_trainer(**kwargs)
        check_processes(trainer)
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it, or only show what it would train on."""
        options = self.config[subcommand]
        rows, first, dry = (options.pop(name) for name in ("print_rows", "first_row", "dry_run"))
        if dry:
            self._dry_run()
        elif rows:
            print_rows(self.datamodule, rows, first, options.get("ckpt_path"))
        else:
            with new_folder(self.trainer, fit=subcommand == "fit", fresh=options.get("ckpt_path") is None):
                super()._run_subcommand(subcommand)

    def before_predict(self) -> None:
        """Answers are printed and written, whatever callbacks the run had."""
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        if not any(isinstance(callback, PredictionWriter) for callback in callbacks):
            callbacks.append(PredictionWriter())
        for callback in callbacks:
            if isinstance(callback, PredictionWriter) and self._get(self.config, "json"):
                callback.form = "json"

    def after_predict(self) -> None:
        """End with exit code 1 if a prompt failed, which has been said of each; the others have been answered."""
        failed = getattr(self.model, "failed_prompts", [])
        if failed:
            which = ", ".join(f"'{prompt.name}'" for prompt in failed)
            sys.exit(f"error: {len(failed)} of {self.model.prompts_seen} prompts failed: {which}")

    def _dry_run(self) -> None:
        trainer, loader = self._get(self.config_init, "trainer"), self.datamodule.loader
        devices = trainer.devices
        run = Run(
            rows=loader.rows,
            row_length=loader.row_length,
            devices=int(devices) if str(devices).isdecimal() else 1,
            nodes=trainer.num_nodes,
            precision=str(trainer.precision),
            strategy=trainer.strategy,
            averaged=any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks or ()),
            steps=trainer.max_steps,
        )
        report(self.model, run)

    def _parse_ckpt_path(self) -> None:
        """Lightning would let the checkpoint's values win over the command line; `parse_arguments` does it instead."""


def main(args: list[str] | None = None) -> None:
    """Run the program. A mistake in the configuration or the data ends it with one sentence and exit code 1.

    Any other error is one of the program: it shows its traceback and asks for a report. With the environment variable
    LIT_MM_TRACEBACK set, a mistake shows its traceback too.
    """
    _quieten()
    write_anywhere()
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does: a user's own classes are found in the working folder
    try:
        with stopped_by_signals(), _calm((sys.argv[1:] if args is None else args)[:1] == ["predict"]):
            LitCLI(args=args)
        _leave_group()
    except SystemExit:  # of all processes alike
        _leave_group()
        raise
    except Exception as error:  # perhaps of this process alone, while others wait within a collective operation
        if isinstance(error.__cause__, Stopped):  # what a signal to a worker has broken
            sys.exit(error.__cause__.code)
        sentence = _sentence_of(error)
        if sentence is None:
            error.__notes__ = [REPORT, *notes_of(error)]  # how the run goes on is the last line
        if sentence is None or os.environ.get("LIT_MM_TRACEBACK"):
            raise
        sys.exit("\n".join([f"error: {sentence}", *notes_of(error)]))


@contextmanager
def _calm(calm: bool) -> Iterator[None]:
    """Where answers are waited for, Lightning says nothing about devices, seeds and checkpoints but warnings."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers if calm else ():
            logger.setLevel(logging.WARNING)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _leave_group() -> None:
    """End the process group while Python is whole.

    Lightning does so for NCCL alone. Threads of gloo may still hold tensors, and freeing them while the interpreter
    ends aborts the process (pytorch/pytorch#179291, #190489).
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # what refers to the group's parts
        dist.destroy_process_group()


def _sentence_of(error: Exception) -> str | None:
    """Of a mistake, or of what the system did or refused; None if the error is one of the program."""
    if isinstance(error, MisconfigurationException):  # Lightning's word for the same
        return str(error).strip()
    mistake = mistake_in(error)
    if mistake is not None:
        return mistake.sentence
    return killed_worker(error) or lost_process(error) or refused_by_system(error)


def _is_of_use(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return "litlogger" not in message and not message.startswith("TPU available: False")


def _quieten() -> None:
    """Hide messages that a user of this program can do nothing about."""
    for message in (
        ".*LightningCLI's args parameter is intended.*",
        ".*is deprecated, use `isinstance.*",
        ".*does not have many workers.*",
        ".*dataloader is not resumable.*",  # ours is: the data module keeps the place
        ".*Couldn't infer the batch indices.*",
        ".*module\\(s\\) in eval mode at the start of training.*",  # the frozen visual tokenizer
        ".*The dirpath has changed from.*",
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # what is logged is of all processes already
        ".*Consider setting `persistent_workers.*",
        ".*returned a view tensor.*",  # FSDP's; nothing is changed in place
        ".*`IterableDataset` has `__len__` defined.*",  # ours is right for any number of workers
        ".*Checkpoint directory .* exists and is not empty.*",  # of a run that goes on; `new_folder` refuses others
        ".*is not supported by the model summary.*",  # mixed: weights take 32 bits, as it says
        ".*Previous log files in this directory will be.*",  # of CSVLogger; `new_folder` keeps them
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_of_use)

"""A checkpoint is a complete configuration: what it was trained with is read before everything that is given."""

from __future__ import annotations

from os.path import abspath  # links are left: last.ckpt may be one
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from lit_mm.mistake import MissingFile, Mistake
from lit_mm.parallel.checkpoint_files import complete_checkpoints, read_header
from lit_mm.parallel.exported import CONFIG_KEY, SHARED_KEYS, is_exported
from lit_mm.parallel.trained_weights import find_checkpoint

_FOUND_BY_LIGHTNING = ("last", "best", "hpc", "null")  # values of --ckpt_path that are not paths


def with_checkpoint_config(args: list[str], folder: Path) -> list[str]:
    """The arguments, with the configuration of `--ckpt_path` as the first `--config`, and its path for its name.

    Args:
        args: of the program, the command first.
        folder: to write that configuration to.

    Raises:
        Mistake: the checkpoint is not there, is none of ours, or is none that this command can use.
    """
    given = _option(args, "--ckpt_path")
    if given is None or given in _FOUND_BY_LIGHTNING or "://" in given or given.startswith("registry"):
        return args
    try:
        path = find_checkpoint(given)
    except MissingFile as error:
        raise MissingFile(f"--ckpt_path: {error}") from error
    if args[0] == "fit" and is_exported(path):
        raise Mistake(
            f"--ckpt_path '{given}' holds weights alone; fit goes on from a checkpoint that fit has written, or "
            f"starts a new run from weights with --model.start_from {path}"
        )
    header = read_header(path)
    if not isinstance(header, dict) or CONFIG_KEY not in header:
        raise Mistake(f"the checkpoint '{path}' was not written by lit-mm (it holds no configuration); give another")
    config = {k: v for k, v in yaml.safe_load(header[CONFIG_KEY]).items() if k in SHARED_KEYS}
    if args[0] != "fit":
        _name_folder(config["trainer"].get("logger"), path, args[0])
    elif _is_newest(path):
        _go_on_in_folder(config["trainer"], Path(abspath(path)).parent.parent)
    else:
        forget_folder(config["trainer"])
    file = folder / "checkpoint.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return [args[0], "--config", str(file), *_with_option(args[1:], "--ckpt_path", str(path))]


def _name_folder(loggers: Any, checkpoint: Path, command: str) -> None:
    """Let what a command writes be in a numbered folder within that of the checkpoint's run: `<run>/predict/version_0`.

    An exported folder has no run; its own name stands for it. Other loggers than these two name folders in their way.
    """
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(logger, dict) and logger["class_path"].rpartition(".")[2] in ("TensorBoardLogger", "CSVLogger"):
            options = logger.setdefault("init_args", {})
            run = _run_of(Path(abspath(checkpoint)), Path(abspath(options.get("save_dir") or ".")))
            options |= {"name": (run / command).as_posix(), "version": None}


def _is_newest(checkpoint: Path) -> bool:
    """Whether a checkpoint is the last of its run: what goes on from an earlier one is another run."""
    folder = Path(abspath(checkpoint)).parent
    found = complete_checkpoints(folder) if folder.name == "checkpoints" else []
    return bool(found) and max(found, key=lambda path: path.stat().st_mtime_ns).samefile(checkpoint)


def _go_on_in_folder(trainer: dict[str, Any], run: Path) -> None:
    """Let a fit write to the folder of the run that it goes on with, and log to the same run of a logger."""
    loggers = trainer.get("logger")
    if loggers is False:
        trainer["default_root_dir"] = str(run)
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(logger, dict):
            kind, options = logger["class_path"].rpartition(".")[2], logger.setdefault("init_args", {})
            if kind in ("TensorBoardLogger", "CSVLogger"):
                options |= {"save_dir": str(run.parent.parent), "name": run.parent.name, "version": run.name}
            elif kind == "WandbLogger":
                options["version"] = run.name
            elif kind == "MLFlowLogger":
                options["run_id"] = run.name


def forget_folder(trainer: dict[str, Any] | Namespace) -> None:
    """Let a fit write to a new folder, whichever the run of this configuration wrote to; changed in place."""
    loggers = trainer.get("logger")
    if loggers is False:
        trainer["default_root_dir"] = None
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        options = (logger.get("init_args") if isinstance(logger, dict | Namespace) else None) or {}
        for name in ("version", "id", "run_id"):
            if name in options:
                options[name] = None


def _run_of(checkpoint: Path, runs: Path) -> Path:
    """The folder of its run, relative to that of all runs if it is in there."""
    if is_exported(checkpoint):
        return Path(checkpoint.name)
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    return run.relative_to(runs) if run.is_relative_to(runs) else Path(*run.parts[-2:])


def _option(args: list[str], name: str) -> str | None:
    for i, arg in enumerate(args):
        if arg == name and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith(f"{name}="):
            return arg.partition("=")[2]
    return None


def _with_option(args: list[str], name: str, value: str) -> list[str]:
    """The arguments with another value of one that is given once."""
    at = next(i for i, arg in enumerate(args) if arg.partition("=")[0] == name)
    return [*args[:at], f"{name}={value}", *args[at + (1 if "=" in args[at] else 2) :]]

"""A checkpoint is a complete configuration: what it was trained with is read before everything that is given."""

from __future__ import annotations

from pathlib import Path

import yaml

from lit_mm.mistake import MissingFile, Mistake
from lit_mm.parallel.checkpoint_files import is_sharded, read_header
from lit_mm.parallel.exported import CONFIG_KEY, SHARED_KEYS, is_exported

_FOUND_BY_LIGHTNING = ("last", "best", "hpc", "null")  # values of --ckpt_path that are not paths


def with_checkpoint_config(args: list[str], folder: Path) -> list[str]:
    """The arguments, with the configuration of `--ckpt_path` as the first `--config`.

    Args:
        args: of the program, the command first.
        folder: to write that configuration to.

    Raises:
        Mistake: the checkpoint is not there, is none of ours, or is none that this command can use.
    """
    path = _option(args, "--ckpt_path")
    if path is None or path in _FOUND_BY_LIGHTNING or "://" in path or path.startswith("registry"):
        return args
    if not (Path(path).is_file() or is_sharded(Path(path)) or is_exported(Path(path))):
        found = "is no complete checkpoint" if Path(path).exists() else "does not exist"
        raise MissingFile(
            f"--ckpt_path: '{path}' {found}; give a .ckpt file or folder that fit has written, or a folder of "
            "lit_mm.export"
        )
    if args[0] == "fit" and is_exported(Path(path)):
        raise Mistake(
            f"--ckpt_path '{path}' holds weights alone; fit goes on from a checkpoint that fit has written, or "
            f"starts a new run from weights with --model.start_from {path}"
        )
    header = read_header(Path(path))
    if not isinstance(header, dict) or CONFIG_KEY not in header:
        raise Mistake(f"the checkpoint '{path}' was not written by lit-mm (it holds no configuration); give another")
    config = {k: v for k, v in yaml.safe_load(header[CONFIG_KEY]).items() if k in SHARED_KEYS}
    file = folder / "checkpoint.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return [args[0], "--config", str(file), *args[1:]]


def _option(args: list[str], name: str) -> str | None:
    for i, arg in enumerate(args):
        if arg == name and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith(f"{name}="):
            return arg.partition("=")[2]
    return None

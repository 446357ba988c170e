"""What every benchmark ends with: a table for a person, JSON for a program, and the machine that it ran on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table


def options(description: str | None, name: str, **numbers: int) -> argparse.ArgumentParser:
    """The parser of a benchmark.

    Args:
        description: its docstring.
        name: of the JSON file.
        numbers: options with whole numbers, and their defaults.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in numbers.items():
        parser.add_argument(f"--{option}", type=int, default=default, help=f"default {default}")
    out = Path(f"runs/benchmarks/{name}.json")
    parser.add_argument("--out", type=Path, default=out, help=f"JSON file to write; default {out}")
    return parser


def machine() -> dict[str, Any]:
    """What figures depend on."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": devices,
    }


def finish(tables: Table | list[Table], results: Any, out: Path) -> None:
    """Print the tables, and write the results."""
    for table in tables if isinstance(tables, list) else [tables]:
        for column in table.columns[1:]:
            column.justify = "right"
        Console(width=None if sys.stdout.isatty() else 120).print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine(), "results": results}, indent=2) + "\n", encoding="utf8")
    print(f"written to {out}")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()

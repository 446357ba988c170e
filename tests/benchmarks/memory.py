"""What a process needs in memory when the model is shared out over 1, 2 and 4: estimated, and measured.

Run: `python -m tests.benchmarks.memory --out runs/memory.json`. The model has 148 M parameters, the batch 4 rows of
512. Parameters and optimizer states are counted exactly; the peak is how much the process has grown since before the
model was built, on a CPU, and includes what libraries keep.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.helpers.program import ROOT, environment
from tests.helpers.weigher import weights_held

MODEL = {"dim": 768, "depth": 12, "heads": 12, "kv_heads": 6, "feed_forward.hidden_dim": 2048}
ROWS = 4
GIB = 2**30


def measure(ranks: int, recompute: str) -> dict[str, Any]:
    """Two steps on so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        args = [
            "fit",
            "--config=configs/tiny.yaml",
            *(f"--model.backbone.{name}={value}" for name, value in MODEL.items()),
            f"--model.parallelize.recompute={recompute}",
            "--data.loader.workers=0",
            f"--data.loader.rows={ROWS // ranks}",
            "--trainer.max_steps=2",
            "--trainer.num_sanity_val_steps=0",
            "--trainer.val_check_interval=1000",
            "--trainer.enable_progress_bar=false",
            f"--trainer.logger.save_dir={folder}",
            f"--trainer.devices={ranks}",
            "--trainer.strategy=fsdp2" if ranks > 1 else "--trainer.strategy=auto",
            "--trainer.callbacks=[]",
            "--trainer.callbacks+=callbacks.monitors.memory_report.MemoryReport",
            "--trainer.callbacks+=tests.helpers.weigher.Weigher",
            f"--trainer.callbacks.folder={folder}",
        ]
        command = [sys.executable, "-m", "lit_mm", *args]
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
        estimated, measured = re.findall(r"([\d.]+) GiB", done.stdout.splitlines()[-1])
        held = max(sum(shard.values()) for shard in weights_held(Path(folder)))
    return {
        "processes": ranks,
        "recompute": recompute,
        "parameters_and_optimizer": held / GIB,
        "estimated": float(estimated),
        "measured": float(measured),
    }


def main() -> None:
    """Measure, print a table and, if asked, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; none by default")
    args = parser.parse_args()
    found = [measure(ranks, recompute) for recompute in ("none", "all") for ranks in (1, 2, 4)]
    table = Table("processes", "recompute", "parameters and optimizer", "estimated peak", "measured peak", title="GiB")
    for one in found:
        numbers = (f"{one[name]:.3f}" for name in ("parameters_and_optimizer", "estimated", "measured"))
        table.add_row(str(one["processes"]), one["recompute"], *numbers)
    Console().print(table)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

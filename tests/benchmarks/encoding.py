"""What share of a training step each visual tokenizer takes to encode the step's pictures.

Run: `python -m tests.benchmarks.encoding`
"""

from __future__ import annotations

import statistics
import tempfile

from rich.table import Table

from lit_mm.cli import main as lit_mm
from tests.benchmarks.encoding_time import EncodingTime
from tests.benchmarks.report import finish, options

WARM_UP = 5  # steps that are not counted


def measure(vision: str, steps: int) -> dict[str, float]:
    """Medians over the steps of a run of configs/tiny.yaml with `vision`."""
    with tempfile.TemporaryDirectory() as folder:
        lit_mm(
            [
                "fit",
                "--config=configs/tiny.yaml",
                f"--model.vision={vision}",
                "--model.flow.prediction=x",
                f"--trainer.max_steps={WARM_UP + steps}",
                f"--trainer.default_root_dir={folder}",
                "--trainer.logger=false",
                "--trainer.callbacks=[tests.benchmarks.encoding_time.EncodingTime]",
                "--trainer.num_sanity_val_steps=0",
                "--trainer.limit_val_batches=0",
                "--trainer.enable_progress_bar=false",
                "--trainer.enable_model_summary=false",
                "--trainer.enable_checkpointing=false",
            ]
        )
    shares = [e / s for e, s in zip(EncodingTime.encodings, EncodingTime.steps, strict=True)][WARM_UP:]
    return {
        "step_seconds": statistics.median(EncodingTime.steps[WARM_UP:]),
        "encoding_seconds": statistics.median(EncodingTime.encodings[WARM_UP:]),
        "pictures": statistics.mean(EncodingTime.pictures[WARM_UP:]),
        "share": statistics.median(shares),
    }


def main() -> None:
    """Print a table and write it as JSON."""
    parser = options(__doc__, "encoding", steps=40)
    parser.add_argument("--vision", nargs="+", default=["rae_tiny", "vae_tiny", "dual_tiny", "pixels"])
    arguments = parser.parse_args()
    found = {name: measure(f"configs/vision/{name}.yaml", arguments.steps) for name in arguments.vision}
    table = Table("tokenizer", "pictures a step", "step (s)", "encoding (s)", "share of the step")
    for name, row in found.items():
        times = f"{row['step_seconds']:.2f}", f"{row['encoding_seconds']:.3f}"
        table.add_row(name, f"{row['pictures']:.0f}", *times, f"{row['share']:.1%}")
    finish(table, found, arguments.out)


if __name__ == "__main__":
    main()

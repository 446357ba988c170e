"""Measure the visual tokens of a run, for `model.flow.statistics`.

python -m lit_mm.command_line.token_statistics --config configs/tiny.yaml --out tokens.safetensors
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import torch

from lit_mm.cli import LitCLI
from lit_mm.flow.token_statistics import TokenStatistics, save_statistics
from lit_mm.mistake import Mistake, ends_with_a_sentence


def measure(args: list[str], out: Path, rows: int = 500) -> None:
    """Measure the frames of the first training rows of a run, and write them.

    Args:
        args: of `lit-mm fit`.
        out: file to write.
        rows: how many.

    Raises:
        Mistake: there is no frame in them.
    """
    cli = LitCLI(args=args, run=False)
    vision, data = cli.model.vision, cli.datamodule
    data.setup("fit")
    statistics = TokenStatistics(vision.channels)
    for number, batch in enumerate(data.training_rows()):
        if number * data.loader.rows >= rows:
            break
        if len(batch.frames):
            statistics.add(vision.encode(batch.frames))
    if not statistics.count:
        raise Mistake(f"there is no frame in the first {rows} rows of this run; give one with pictures")
    mean, covariance = statistics.result()
    save_statistics(out, mean, covariance, vision.fingerprint())
    variances = torch.linalg.eigvalsh(covariance).flip(0)
    shares = (variances.cumsum(0) / variances.sum()).tolist()
    enough = next(i + 1 for i, share in enumerate(shares) if share >= 0.99)
    print(f"{statistics.count} tokens: {enough} of {len(mean)} principal axes hold 99 % of the variance; wrote {out}")


if __name__ == "__main__":
    parser = ArgumentParser(description="Measure the visual tokens of a run; all other arguments are those of its fit.")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    own, of_fit = parser.parse_known_args()
    with ends_with_a_sentence():
        measure(of_fit, own.out)

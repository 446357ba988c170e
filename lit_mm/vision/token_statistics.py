"""Mean and covariance of single visual tokens over training pictures, for `lit_mm.flow.preconditioning`.

python -m lit_mm.vision.token_statistics --config configs/tiny.yaml --out tokens.safetensors
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FILE = "tokens.safetensors"
SHIPPED = Path(__file__).parent / "weights"
_FINGERPRINT = "vision_fingerprint"


class TokenStatistics:
    """Sums of tokens and of their products, in float64.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.sum = torch.zeros(channels, dtype=torch.float64)
        self.products = torch.zeros(channels, channels, dtype=torch.float64)

    def add(self, latents: Tensor) -> None:
        """Count the tokens of (F, N, C)."""
        tokens = latents.flatten(0, 1).double()
        self.count += len(tokens)
        self.sum += tokens.sum(0)
        self.products += tokens.T @ tokens

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean (C,) and covariance (C, C), float32."""
        mean = self.sum / self.count
        return mean.float(), (self.products / self.count - torch.outer(mean, mean)).float()


def save_statistics(path: Path, mean: Tensor, covariance: Tensor, fingerprint: str) -> None:
    """Write them, with the fingerprint of the visual tokenizer whose tokens they are of."""
    save_file({"mean": mean, "covariance": covariance}, path, metadata={_FINGERPRINT: fingerprint})


def load_statistics(name: str) -> tuple[Tensor, Tensor, str]:
    """Mean, covariance, and the fingerprint of the visual tokenizer.

    Args:
        name: of a file, or of an autoencoder that comes with the package.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: the file is something else.
    """
    path = SHIPPED / name / FILE if (SHIPPED / name / FILE).is_file() else Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"model.flow.statistics: no file '{name}'; `python -m lit_mm.vision.token_statistics --config … "
            "--out FILE` makes one"
        )
    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor("mean"), file.get_tensor("covariance"), file.metadata()[_FINGERPRINT]
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"model.flow.statistics: '{path}' does not hold token statistics ({error})") from error


def check_made_for(statistics: str | None, vision: str) -> None:
    """Refuse statistics of another tokenizer's tokens.

    Raises:
        ValueError: the two fingerprints differ.
    """
    if statistics is not None and statistics != vision:
        raise ValueError(
            f"model.flow.statistics are of the visual tokenizer '{statistics}', but model.vision is '{vision}'; make "
            "some for it (`python -m lit_mm.vision.token_statistics`), or leave them out"
        )


def measure(args: list[str], out: Path, rows: int = 500) -> None:
    """Measure the frames of the first training rows of a run, and write them.

    Args:
        args: of `lit-mm fit`.
        out: file to write.
        rows: how many.

    Raises:
        ValueError: there is no frame in them.
    """
    from lit_mm.cli import LitCLI

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
        raise ValueError(f"there is no frame in the first {rows} rows of this run; give one with pictures")
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
    measure(of_fit, own.out)

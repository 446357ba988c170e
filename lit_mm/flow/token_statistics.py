"""Mean and covariance of single visual tokens over training pictures, for `lit_mm.flow.preconditioning`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lit_mm.mistake import MissingFile, Mistake
from lit_mm.tensor_files import save_tensors

FILE = "tokens.safetensors"
SHIPPED = Path(__file__).parents[1] / "vision/weights"
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
    save_tensors({"mean": mean, "covariance": covariance}, path, metadata={_FINGERPRINT: fingerprint})


def load_statistics(name: str) -> tuple[Tensor, Tensor, str]:
    """Mean, covariance, and the fingerprint of the visual tokenizer.

    Args:
        name: of a file, or of an autoencoder that comes with the package.

    Raises:
        MissingFile: there is neither.
        Mistake: the file is something else.
    """
    path = SHIPPED / name / FILE if (SHIPPED / name / FILE).is_file() else Path(name)
    if not path.is_file():
        raise MissingFile(
            f"model.flow.statistics: no file '{name}'; `python -m lit_mm.command_line.token_statistics --config … "
            "--out FILE` makes one"
        )
    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor("mean"), file.get_tensor("covariance"), file.metadata()[_FINGERPRINT]
    except (SafetensorError, KeyError, TypeError) as error:
        raise Mistake(f"model.flow.statistics: '{path}' does not hold token statistics ({error})") from error


def check_made_for(statistics: str | None, vision: str) -> None:
    """Refuse statistics of another tokenizer's tokens.

    Raises:
        Mistake: the two fingerprints differ.
    """
    if statistics is not None and statistics != vision:
        raise Mistake(
            f"model.flow.statistics are of the visual tokenizer '{statistics}', but model.vision is '{vision}'; make "
            "some for it (`python -m lit_mm.command_line.token_statistics`), or leave them out"
        )

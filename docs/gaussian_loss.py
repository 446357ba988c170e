"""The flow loss of a model that knew nothing but the mean and covariance of single visual tokens.

For a Gaussian, the best velocity given z_t is linear, so its loss has a closed form: along a principal axis of variance
s, `s + 1 - (t s - (1 - t))^2 / (t^2 s + (1 - t)^2)`, averaged over axes and over the timesteps of validation.

python docs/gaussian_loss.py
"""

from __future__ import annotations

import torch

from data_modules.action_video import ActionVideoDataModule
from data_modules.base import DocumentDataModule
from data_modules.dataset import Draw
from data_modules.image_text import ImageTextDataModule
from lit_mm.flow.matching import FlowMatching
from lit_mm.sequence import Frame
from lit_mm.vision import Rae

DOCUMENTS = 500


def gaussian_loss(variances: torch.Tensor, timesteps: torch.Tensor) -> float:
    """Mean loss over axes (C,) and timesteps (T,)."""
    s, t = variances[None], timesteps[:, None]
    return float((s + 1 - (t * s - (1 - t)).square() / (t.square() * s + (1 - t).square())).mean())


def main() -> None:
    """Print one line per source."""
    vision = Rae(folder="rae_tiny")
    timesteps = FlowMatching().timestep_grid([0], [8], torch.device("cpu"), shift=1.0).double()
    shared = {"tokenizer": "data/tiny/tokenizer.json", "image_size": 64, "tokens_per_frame": vision.num_tokens}
    modules: dict[str, DocumentDataModule] = {
        "image_text": ImageTextDataModule(train="data/tiny/image_text/train", **shared),
        "action_video": ActionVideoDataModule(train="data/tiny/action_video/train", unit=32, **shared),
    }
    for source, module in modules.items():
        module.setup("fit")
        dataset = module.datasets["train"][source]
        documents = [dataset.document(Draw(i * len(dataset) // DOCUMENTS, 0, 0)) for i in range(DOCUMENTS)]
        drawn = [s.image for d in documents for s in d.segments if isinstance(s, Frame) and not s.clean]
        tokens = vision.encode(torch.stack(drawn)).flatten(0, 1)
        variances = torch.linalg.eigvalsh(torch.cov(tokens.T.double())).clamp(min=0)
        print(f"{source}: {gaussian_loss(variances, timesteps):.3f}, largest variance {variances[-1]:.1f}")


if __name__ == "__main__":
    main()

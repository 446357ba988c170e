"""A callback that writes down how many bytes of parameters and optimizer states this process holds."""

import json
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

from lit_mm.parallel import tensors


class Weigher(Callback):
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        states = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
        local = [v.to_local() if isinstance(v, DTensor) else v for v in states if isinstance(v, Tensor)]
        held = {"parameters": tensors(pl_module.model), "optimizer": local}
        record = {name: sum(t.numel() * t.element_size() for t in found) for name, found in held.items()}
        (self.folder / f"bytes{trainer.global_rank}.json").write_text(json.dumps(record))


def weights_held(folder: Path) -> list[dict[str, int]]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob("bytes*.json"))]

"""How a mixture of experts uses them: load in training, and who chooses whom in validation."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from rich.console import Console
from rich.table import Table
from torch import Tensor

from callbacks.loggers import log_histogram, log_picture
from callbacks.steps import log_values, step_ended
from lit_mm.backbone.balance import summarise
from lit_mm.backbone.specialisation import Specialisation, specialisation
from lit_mm.training.run_folder import run_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "experts"


class ExpertMonitor(Callback):
    """Shows how experts are used; does nothing in a model without any.

    In training, of all tokens since the last logged step, for each layer: `experts/layer_NN/largest_load` (over the
    mean load; 1 is even), `load_entropy` (of an even load's, 1 is even), `dead` (experts that no token chose); and the
    histogram of loads over the mean load.

    In validation, over all validation tokens and for each layer: how many experts are text, multimodal and visual
    ones, the agreement between reading and drawing, the variation over timesteps, and the same three values of the
    load, see `specialisation.Specialisation`. They are drawn as a heatmap of scores, layer by expert, and written to
    `experts/step_NNNNNN.png` and `.json` in the run folder; means over layers join the validation results, so this
    callback stands before `ResultsTable`. The heatmap needs matplotlib, which comes with `lit-mm[figures]`; without it
    the rest is written.
    """

    def __init__(self) -> None:
        self._load: Tensor | None = None

    # ---- training

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add up the load, and log it every so often."""
        if not step_ended(trainer, batch_idx) or pl_module.state.expert_load is None:
            return
        load = pl_module.state.expert_load.sum(1)
        self._load = load if self._load is None else self._load + load
        if trainer.global_step % trainer.log_every_n_steps:
            return
        load, self._load = self._load.cpu(), None
        summary = summarise(load)
        logged = {}
        for layer in range(len(load)):
            name = f"experts/layer_{layer:02d}"
            logged[f"{name}/largest_load"] = float(summary.largest[layer])
            logged[f"{name}/load_entropy"] = float(summary.entropy[layer])
            logged[f"{name}/dead"] = float(summary.dead[layer])
        log_values(pl_module, logged)
        if trainer.is_global_zero:
            for layer, values in enumerate(load / load.mean(-1, keepdim=True)):
                log_histogram(trainer, f"experts/layer_{layer:02d}/load", values)

    # ---- validation

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and log what was counted."""
        counts = pl_module.state.validation_expert_tokens
        if counts is None:
            return
        if dist.is_initialized():
            dist.all_reduce(counts)
        run = run_folder(trainer)
        found = specialisation(counts.cpu())
        pl_module.validation_results.update(overall(found))
        if not trainer.is_global_zero:
            return
        figure = draw(found) if find_spec("matplotlib") else None
        if figure is None:
            rank_zero_warn("no figure of experts is drawn without matplotlib: pip install 'lit-mm[figures]'")
        for logger in trainer.loggers:
            logger.log_metrics(overall(found), step=trainer.global_step)
        if figure is not None:
            log_picture(trainer, "experts/specialisation", _pixels(figure))
        if run:
            folder = run / FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            name = f"step_{trainer.global_step:06d}"
            if figure is not None:
                figure.savefig(folder / f"{name}.png")
            (folder / f"{name}.json").write_text(json.dumps(as_json(found)) + "\n", encoding="utf-8")
        if trainer.state.fn == "validate":
            Console().print(table(found))


def overall(found: Specialisation) -> dict[str, float]:
    """Means over the layers, and of the load the worst layer's."""
    return {
        "val/experts/text_share": float((found.text / found.score.shape[-1]).mean()),
        "val/experts/multimodal_share": float((found.multimodal / found.score.shape[-1]).mean()),
        "val/experts/visual_share": float((found.visual / found.score.shape[-1]).mean()),
        "val/experts/agreement": float(found.agreement.nanmean()),
        "val/experts/timestep_variation": float(found.timestep_variation.nanmean()),
        "val/experts/largest_load": float(found.largest.max()),
        "val/experts/load_entropy": float(found.entropy.min()),
        "val/experts/dead": float(found.dead.sum()),
    }


def as_json(found: Specialisation) -> dict[str, Any]:
    """Every field as lists, with null for what is not a number."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return {name: plain(value.tolist()) for name, value in found._asdict().items()}


def draw(found: Specialisation) -> Figure:
    """Scores of all experts, each layer's sorted, and how many experts of each kind a layer has."""
    from matplotlib.figure import Figure

    layers = len(found.score)
    figure = Figure(figsize=(10, 1.5 + 0.3 * layers), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 1))
    image = left.imshow(
        found.score.sort(-1, descending=True).values,
        cmap="RdBu_r",
        vmin=-1,
        vmax=1,
        aspect="auto",
        interpolation="none",
    )
    left.set(xlabel="expert, sorted by score", ylabel="layer", yticks=range(layers))
    figure.colorbar(image, ax=left, label="visual  ←  score  →  text")
    start = torch.zeros(layers)
    for name, counts, colour in (
        ("text", found.text, "#b2182b"),
        ("multimodal", found.multimodal, "#cccccc"),
        ("visual", found.visual, "#2166ac"),
    ):
        right.barh(range(layers), counts, left=start, label=name, color=colour)
        start = start + counts
    right.set(xlabel="experts", yticks=range(layers))
    right.invert_yaxis()
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize="small")
    return figure


def _pixels(figure: Figure) -> Tensor:
    """(3, height, width) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[:, :, :3].copy()).permute(2, 0, 1)


def table(found: Specialisation) -> Table:
    """One row per layer."""
    shown = Table(
        "layer", "text", "multimodal", "visual", "agreement", "variation over t", "largest load", "entropy", "dead",
        title="experts",
    )  # fmt: skip
    for layer in range(len(found.score)):
        shown.add_row(
            str(layer),
            *(str(int(column[layer])) for column in (found.text, found.multimodal, found.visual)),
            *(
                f"{float(c[layer]):.3f}"
                for c in (found.agreement, found.timestep_variation, found.largest, found.entropy)
            ),
            str(int(found.dead[layer])),
        )
    return shown

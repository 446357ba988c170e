"""The recipe as a LightningModule: a packed batch in, two losses out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_mm.backbone.layout import SequenceLayout
from lit_mm.backbone.transformer import Transformer
from lit_mm.flow.matching import FlowMatching
from lit_mm.flow.sampler import FlowSampler
from lit_mm.flow.token_statistics import check_made_for
from lit_mm.generation.decoding import Decoder
from lit_mm.mistake import Mistake
from lit_mm.model.heads import VisualTokens
from lit_mm.model.multimodal import at_positions
from lit_mm.parallel import Parallelize
from lit_mm.prediction import AnswersPrompts
from lit_mm.sequence import PackedBatch
from lit_mm.training.loss_centering import LossCentering, fixed_weights
from lit_mm.training.metrics import LossMeans, means_of_all
from lit_mm.training.optimization import clip_gradients, global_means, parameter_groups
from lit_mm.training.schedule import WarmupCosine, apply_settings, settings_of
from lit_mm.vision.base import VisualTokenizer
from lit_mm.vision.latents import FiniteCheck, tokens_from_store

POSITIONS = "positions"  # what validation counts beside its losses: positions that hold something


class Losses(NamedTuple):
    """Of one batch.

    Attributes:
        text: (T,) of every predicted token, without a gradient.
        text_sum: () their sum.
        flow: (F',) of every drawn frame.
        expert: () what the experts add, weighted.
        expert_tokens: how often each expert was chosen, see `BackboneOutput`.
    """

    text: Tensor
    text_sum: Tensor
    flow: Tensor
    expert: Tensor
    expert_tokens: Tensor | None


class LitMultimodal(AnswersPrompts):
    """Next-token prediction on text and flow matching on visual tokens, in one transformer (paper).

    `L = text_weight * L_text + flow_weight * L_flow`, each the mean over all predicted tokens, or drawn frames, of the
    optimizer step: of all ranks and micro-batches. Experts may add balance losses, means over micro-batches.

    `train/loss` and `val/loss` are both this L, without balance losses and with the two weights given here even where
    `loss_centering` moves them, so that they can be compared. Validation reads each source on its own; its means weigh
    a token or frame of a source by the source's share of the training tokens over the tokens that were read of it:
    as often as tokens and frames of all sources come in training. A source that is not trained on does not count.

    Args:
        backbone: the transformer; everything but its vocabulary size.
        vision: the frozen visual tokenizer.
        vocab_size: entries of the text embedding and head; the tokenizer's size, or that rounded up to a multiple
            of 128.
        flow: path, timesteps, noise shift and prediction of the flow.
        sampler: solves the flow when frames are drawn.
        embed_places: learn a vector for every place in a frame, see `VisualInput`.
        text_weight: λ of the text loss (paper).
        flow_weight: λ of the flow loss (paper).
        loss_centering: gives both losses a moving weight in place of the two above; none by default.
        optimizer: AdamW (paper) by default, with Transfusion's betas and weight decay (ours: the paper does not say);
            weight decay is applied to matrices only.
        schedule: of the learning rate.
        parallelize: activation checkpointing and compilation.
        start_from: folder of `lit_mm.export`, or the name of a model that comes with the package, whose weights a fit
            starts from, with a fresh optimizer and all rows still to come. What `--ckpt_path` holds is loaded after it,
            and wins.
    """

    def __init__(
        self,
        backbone: Callable[[int], Transformer],
        vision: VisualTokenizer,
        vocab_size: int,
        flow: FlowMatching | None = None,
        sampler: FlowSampler | None = None,
        embed_places: bool = False,
        text_weight: float = 1.0,
        flow_weight: float = 3.0,
        loss_centering: LossCentering | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1),
        schedule: WarmupCosine | None = None,
        parallelize: Parallelize | None = None,
        start_from: str | None = None,
    ) -> None:
        super().__init__(backbone, vision, vocab_size, embed_places, parallelize, start_from)
        self.check_finite = FiniteCheck(vision.fingerprint())
        self.flow = flow or FlowMatching()
        check_made_for(self.flow.made_for, vision.fingerprint())
        if vision.read_channels is not None and (self.flow.read_noise or self.flow.read_frames == "noised"):
            raise Mistake(
                f"model.flow.read_frames is '{self.flow.read_frames}' and model.flow.read_noise {self.flow.read_noise},"
                f" but {type(vision).__name__} reads frames by other tokens than those that noise is put on; set them "
                "to 'clean' and 0"
            )
        self.sampler = sampler or FlowSampler()
        self.text_weight, self.flow_weight = fixed_weights(text_weight, flow_weight)
        self.loss_centering = loss_centering
        self.make_optimizer = optimizer
        self.schedule = schedule or WarmupCosine()
        self.train_means, self.val_means = LossMeans(), LossMeans()
        self._step_loss = torch.tensor(0.0)  # of the micro-batches so far
        self._expert_tokens: Tensor | None = None  # (layers, kinds, experts) of this rank's micro-batches so far
        self.validation_results: dict[str, float] = {}  # of the last validation; evaluations add theirs

    def configure_model(self) -> None:
        """Build the model, and say so where it is too narrow for its visual tokens."""
        super().configure_model()
        warning = self.flow.parameterisation.width_warning(self.model.backbone.dim, self.vision.channels)
        if warning is not None:
            rank_zero_warn(warning)

    def configure_optimizers(self) -> Any:
        """The optimizer, with warm-up and cosine by optimizer step.

        Raises:
            Mistake: gradients are to be clipped otherwise than by their norm, or the optimizer refuses its settings.
        """
        if self.trainer.gradient_clip_algorithm == "value":
            raise Mistake(
                "trainer.gradient_clip_algorithm is 'value', but gradients are clipped by their global norm alone; use "
                "'norm', or leave it out"
            )
        try:
            optimizer = self.make_optimizer(parameter_groups(self.model))
        except (ValueError, TypeError) as error:
            raise Mistake(f"model.optimizer: {error}") from error
        scheduler = self.schedule(optimizer, self.trainer.max_steps)
        self.optimizer_settings = settings_of(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """A checkpoint has been restored by now; configured optimizer settings win over its own."""
        apply_settings(self.optimizer_settings, self.trainer.optimizers[0], self.lr_schedulers())  # type: ignore[arg-type]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the global norm, and keep the norm for the log."""
        self.state.gradient_norm = clip_gradients(self.model.parameters(), gradient_clip_val or math.inf)
        if self.state.spike_detector is not None:
            loss = self._step_loss / self.trainer.accumulate_grad_batches
            if self.trainer.world_size > 1:
                dist.all_reduce(loss)
            # What gradient scalers tell fused optimizers: at 1 the step changes nothing.
            optimizer.found_inf = self.state.spike_detector(loss / self.trainer.world_size, self.state.gradient_norm)  # type: ignore[attr-defined]

    # ---- the two losses

    def visual_tokens(self, batch: PackedBatch) -> tuple[Tensor, Tensor | None]:
        """Clean tokens (F, N, C) of the batch's frames, and those that clean frames are read by, if of another kind."""
        if cached := batch.frames.is_floating_point():
            latents, read = tokens_from_store(self.vision, batch.frames)
        else:
            latents, read = self.vision.encode_frames(batch.frames, batch.drawn_frames)
        self.check_finite((latents, read), batch.frame_origins, cached)
        return latents.to(self.dtype), None if read is None else read.to(self.dtype)

    def losses(self, batch: PackedBatch, timesteps: Tensor) -> Losses:
        """Every token's text loss and every drawn frame's flow loss.

        Args:
            batch: packed rows.
            timesteps: (F,) of every frame; 1 for those that are read without noise.
        """
        latents, read = self.visual_tokens(batch)
        self.state.latents = latents
        sample, drawn = self.flow.sample(latents, timesteps, batch.seeds, batch.frames_per_row), batch.drawn_frames
        visual = VisualTokens(self.flow.network_input(sample), timesteps, batch.visual_positions, drawn, read)
        layout = SequenceLayout(batch.document_ids, batch.frame_ids, batch.positions, batch.branch_ids)
        model = self.used_model
        hidden, expert_loss, expert_tokens = model.hidden(batch.tokens, layout, visual)
        targets = batch.targets.flatten()[batch.predicted_positions]
        text = model.text_loss(at_positions(hidden, batch.predicted_positions), targets)
        predicted = model.velocity(at_positions(hidden, batch.visual_positions[drawn]))
        return Losses(text.each, text.sum, self.flow.frame_losses(predicted, sample[drawn]), expert_loss, expert_tokens)

    def training_step(self, batch: PackedBatch, batch_idx: int) -> Tensor:
        """One step of the recipe."""
        if self.flow.read_frames == "noised":
            batch = batch.with_all_frames_drawn()
        timesteps = self.flow.training_timesteps(batch.frame_clean, batch.seeds, batch.frames_per_row, self._shift())
        losses = self.losses(batch, timesteps)
        self._count(self.train_means, batch, losses, timesteps)
        self._expert_tokens = _sum(self._expert_tokens, losses.expert_tokens)
        sums, counts = (losses.text_sum, losses.flow.sum()), batch.step_counts[:2]
        # Lightning will divide by the number of micro-batches, but these means are of all of them already.
        text, flow = (
            self.trainer.accumulate_grad_batches * mean for mean in global_means(sums, counts, self.trainer.world_size)
        )
        weights: tuple[float | Tensor, float | Tensor] = (self.text_weight, self.flow_weight)
        if self.loss_centering is not None:
            weights = self.loss_centering(text, flow, self.trainer.world_size)
        loss = weights[0] * text + weights[1] * flow + losses.expert
        self._step_loss = self._step_loss + loss.detach()
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then balance the experts by the load of all ranks and micro-batches of the step."""
        super().optimizer_step(*args, **kwargs)
        self._step_loss = torch.zeros_like(self._step_loss)
        if self._expert_tokens is not None:
            self.state.expert_load = self.model.backbone.balance_experts(self._expert_tokens)
            self._expert_tokens = None

    def validation_step(self, batch: PackedBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """The same losses on a fixed grid of timesteps with fixed noise."""
        timesteps = self.flow.timestep_grid(batch.row_numbers, batch.frames_per_row, batch.frames.device, self._shift())
        losses = self.losses(batch, timesteps.masked_fill(batch.frame_clean, 1.0))
        self._count(self.val_means, batch, losses, timesteps)
        sources = batch.source_ids.flatten()
        self.val_means.add(POSITIONS, (sources >= 0).double(), sources.clamp(min=0), batch.sources)
        self.state.validation_expert_tokens = _sum(self.state.validation_expert_tokens, losses.expert_tokens)

    def on_validation_epoch_start(self) -> None:
        """Count from nothing."""
        self.state.validation_expert_tokens = None

    def on_validation_epoch_end(self) -> None:
        """Log `val/<source>/<metric>`, and `val/loss` with its two parts."""
        self.check_finite.flush()
        sums = self.val_means.sums()
        read = {source: total for (source, name), (total, _) in sums.items() if name == POSITIONS and total}
        sums = {key: value for key, value in sums.items() if key[1] != POSITIONS}
        logged: dict[str, float] = {}
        for (source, name), (total, count) in sums.items():
            logged[f"val/{source}/{name}"] = value = total / count
            if name == "text_loss":
                logged[f"val/{source}/perplexity"] = math.exp(min(value, 50.0))
                dataset = self.trainer.datamodule.datasets["val"][source]  # type: ignore[attr-defined]
                if hasattr(dataset, "bytes_per_token"):
                    logged[f"val/{source}/bits_per_byte"] = value / math.log(2) / dataset.bytes_per_token
        shares: Mapping[str, float] = self.trainer.datamodule.source_weights()  # type: ignore[attr-defined]
        weights = {source: shares.get(source, 0.0) / total for source, total in read.items()}
        of_all = means_of_all(sums, weights if any(weights.values()) else None)
        logged |= {f"val/{name}": value for name, value in self.with_loss(of_all).items()}
        self.validation_results = logged
        by_timestep = {f"val/{name}": value for name, value in self.val_means.of_timesteps().items()}
        self.log_dict(logged | by_timestep, rank_zero_only=True)

    def with_loss(self, means: Mapping[str, float]) -> dict[str, float]:
        """`loss`, the weighted sum of `text_loss` and `flow_loss`, before those of the two that there are."""
        weights = {"text_loss": self.text_weight, "flow_loss": self.flow_weight}
        parts = {name: means[name] for name in weights if name in means}
        return {"loss": sum(weights[name] * value for name, value in parts.items()), **parts}

    def _shift(self) -> float:
        return self.flow.noise_shift(self.vision.num_tokens, self.vision.channels)

    def _count(self, means: LossMeans, batch: PackedBatch, losses: Losses, timesteps: Tensor) -> None:
        text_sources = batch.source_ids.flatten()[batch.predicted_positions]
        means.add("text_loss", losses.text, text_sources, batch.sources)
        means.add("flow_loss", losses.flow, batch.frame_source_ids[batch.drawn_frames], batch.sources)
        means.add_flow(losses.flow, timesteps[batch.drawn_frames])

    def decoder(self) -> Decoder:
        """Writes text and draws frames with the present weights, for `predict` and callbacks."""
        return Decoder(self.used_model, self.vision, self.flow, self.sampler, self.tokenizer)

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record both tokenizers and the target of loss centering."""
        self.check_finite.flush()  # what a picture without finite latents has spoilt is not saved
        super().on_save_checkpoint(checkpoint)
        if self.loss_centering is not None:
            checkpoint["loss_centering"] = self.loss_centering.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse those of other tokenizers and shapes; go on with the target of loss centering."""
        super().on_load_checkpoint(checkpoint)
        if self.loss_centering is not None and "loss_centering" in checkpoint:
            self.loss_centering.load_state_dict(checkpoint["loss_centering"])


def _sum(so_far: Tensor | None, more: Tensor | None) -> Tensor | None:
    """Of counts, where there are any; float64, in which no count is too large."""
    if more is None:
        return so_far
    return more.double() if so_far is None else so_far + more

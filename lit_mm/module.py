"""The recipe as a LightningModule: a packed batch in, two losses out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from lit_mm.backbone.layout import SequenceLayout
from lit_mm.backbone.precision import compute_dtype
from lit_mm.backbone.transformer import Transformer
from lit_mm.flow.matching import FlowMatching
from lit_mm.flow.sampler import FlowSampler
from lit_mm.flow.token_statistics import check_made_for
from lit_mm.generation.decoding import Decoder
from lit_mm.mistake import Mistake
from lit_mm.model.heads import VisualTokens
from lit_mm.model.multimodal import MultimodalTransformer, at_positions
from lit_mm.parallel import Fsdp2Strategy, Parallelize, tensors
from lit_mm.parallel.checkpoint_checks import check_shapes, check_tokenizers, fit_average, shapes_of
from lit_mm.parallel.starting_weights import load_starting_weights
from lit_mm.prediction import AnswersPrompts
from lit_mm.sequence import PackedBatch
from lit_mm.tokenizer import Tokenizer
from lit_mm.training.loss_centering import LossCentering
from lit_mm.training.metrics import SourceMeans
from lit_mm.training.optimization import clip_gradients, global_means, parameter_groups
from lit_mm.training.schedule import WarmupCosine, apply_settings, settings_of
from lit_mm.training.state import TrainingState
from lit_mm.vision.base import VisualTokenizer
from lit_mm.vision.latents import FiniteCheck, tokens_from_store

VOCABULARY_MULTIPLE = 128  # a model's vocabulary may be the tokenizer's, rounded up to a multiple of this


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
    """Next-token prediction on text and flow matching on visual tokens, in one transformer (the paper's recipe).

    `L = text_weight * L_text + flow_weight * L_flow`, each the mean over all predicted tokens of all ranks; experts
    may add balance losses.

    Args:
        backbone: the transformer; everything but its vocabulary size.
        vision: the frozen visual tokenizer.
        vocab_size: entries of the text embedding and head; the tokenizer's size, or that rounded up to a multiple
            of 128.
        flow: path, timesteps, noise shift and prediction of the flow.
        sampler: solves the flow when frames are drawn.
        embed_places: learn a vector for every place in a frame, see `VisualInput`.
        text_weight: λ of the text loss.
        flow_weight: λ of the flow loss.
        loss_centering: gives both losses a moving weight in place of the two above; none by default.
        optimizer: AdamW of the recipe by default; weight decay is applied to matrices only.
        schedule: of the learning rate.
        parallelize: activation checkpointing and compilation.
        start_from: folder of `lit_mm.export` whose weights a fit starts from, with a fresh optimizer and all rows still
            to come. What `--ckpt_path` holds is loaded after it, and wins.
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
        super().__init__()
        self.make_backbone, self.vocab_size = backbone, vocab_size
        self.vision = vision
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
        self.embed_places = embed_places
        self.text_weight, self.flow_weight = text_weight, flow_weight
        self.loss_centering = loss_centering
        self.make_optimizer = optimizer
        self.schedule = schedule or WarmupCosine()
        self.parallelize = parallelize or Parallelize()
        self.start_from = start_from
        self.compute_dtype = torch.float32
        self.model: MultimodalTransformer
        self.averaged: MultimodalTransformer | None = None
        self.train_means, self.val_means = SourceMeans(), SourceMeans()
        self.state = TrainingState()
        self._step_loss = torch.tensor(0.0)  # of the micro-batches so far
        self._expert_tokens: Tensor | None = None  # (layers, kinds, experts) of this rank's micro-batches so far
        self.validation_results: dict[str, float] = {}  # of the last validation; evaluations add theirs
        self.register_state_dict_post_hook(_leave_vision_out)
        self.strict_loading = False  # `check_shapes` is strict, and knows what may be missing

    # The data side is told by the CLI how large a picture is and how many tokens it takes.
    @property
    def image_size(self) -> int:
        """Side of the pictures, in pixels."""
        return self.vision.image_size

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of a picture."""
        return self.vision.num_tokens

    # ---- building

    def configure_model(self) -> None:
        """Build the trainable part; called inside the strategy's context, so that it may be made sharded."""
        if hasattr(self, "model"):
            return
        if self._trainer is not None:
            self.compute_dtype = compute_dtype(self.trainer.precision)
        self.model = self._build()
        if self.start_from is not None and self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            tokenizers = self.vision.fingerprint(), self.tokenizer.fingerprint()
            load_starting_weights(self.model, Path(self.start_from), *tokenizers)
        self.flow.warn_if_too_narrow(self.model.backbone.dim, self.vision.channels)
        if self.state.averages_weights:
            self.averaged = self._build().requires_grad_(False)
            self.restart_average()

    def new_model(self) -> MultimodalTransformer:
        """The configured model, on whatever device is the default."""
        backbone = self.make_backbone(self.vocab_size)
        places = self.vision.num_tokens if self.embed_places else None
        channels, read_channels = self.vision.channels, self.vision.read_channels
        return MultimodalTransformer(backbone, self.vocab_size, channels, read_channels, places, self.compute_dtype)

    def _build(self) -> MultimodalTransformer:
        with torch.device("meta"):
            model = self.new_model()
        strategy = self.trainer.strategy if self._trainer is not None else None
        if isinstance(strategy, Fsdp2Strategy):
            self.parallelize(model, strategy.parameter_device, strategy.shard)
        else:
            self.parallelize(model, torch.get_default_device())
        return model

    @property
    def used_model(self) -> MultimodalTransformer:
        """The model in use: outside of training the one with averaged weights, if there is one."""
        return self.model if self.training or self.averaged is None else self.averaged

    @torch.no_grad()
    def restart_average(self) -> None:
        """Let the averaged weights begin at the present ones."""
        assert self.averaged is not None
        for average, value in zip(tensors(self.averaged), tensors(self.model), strict=True):
            average.copy_(value)

    def setup(self, stage: str) -> None:
        """Check that the model's vocabulary is the tokenizer's."""
        size = self.tokenizer.vocab_size
        rounded = -(-size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
        if self.vocab_size not in (size, rounded):
            raise Mistake(
                f"model.vocab_size is {self.vocab_size} but the tokenizer '{self.tokenizer.path}' has {size} entries; "
                f"set it to {size}" + (f" or {rounded}" if rounded != size else "")
            )

    @property
    def tokenizer(self) -> Tokenizer:
        """The data module's."""
        return self.trainer.datamodule.format.tokenizer  # type: ignore[attr-defined]

    def configure_optimizers(self) -> Any:
        """The optimizer, with warm-up and cosine by optimizer step."""
        optimizer = self.make_optimizer(parameter_groups(self.model))
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
        trained = self.trainer.model if isinstance(self.trainer.model, nn.Module) else self
        self.state.gradient_norm = clip_gradients(trained, gradient_clip_val or math.inf)
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
        return Losses(text.each, text.sum, self.flow.loss(predicted, sample[drawn]), expert_loss, expert_tokens)

    def training_step(self, batch: PackedBatch, batch_idx: int) -> Tensor:
        """One step of the recipe."""
        if self.flow.read_frames == "noised":
            batch = batch.with_all_frames_drawn()
        timesteps = self.flow.training_timesteps(batch.frame_clean, batch.seeds, batch.frames_per_row, self._shift())
        losses = self.losses(batch, timesteps)
        self._count(self.train_means, batch, losses)
        self._expert_tokens = _sum(self._expert_tokens, losses.expert_tokens)
        sums, counts = (losses.text_sum, losses.flow.sum()), (len(losses.text), len(losses.flow))
        text, flow = global_means(sums, counts, self.trainer.world_size)
        weights: Sequence[float | Tensor] = (self.text_weight, self.flow_weight)
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
        self._count(self.val_means, batch, losses)
        self.state.validation_expert_tokens = _sum(self.state.validation_expert_tokens, losses.expert_tokens)

    def on_validation_epoch_start(self) -> None:
        """Count from nothing."""
        self.state.validation_expert_tokens = None

    def on_validation_epoch_end(self) -> None:
        """Log `val/<source>/<metric>` and `val/loss`, the mean of the sources' weighted losses."""
        self.check_finite.flush()
        means = self.val_means.compute()
        logged: dict[str, float] = {}
        for (source, name), value in means.items():
            logged[f"val/{source}/{name}"] = value
            if name == "text_loss":
                logged[f"val/{source}/perplexity"] = math.exp(min(value, 50.0))
                dataset = self.trainer.datamodule.datasets["val"][source]  # type: ignore[attr-defined]
                if hasattr(dataset, "bytes_per_token"):
                    logged[f"val/{source}/bits_per_byte"] = value / math.log(2) / dataset.bytes_per_token
        weight = {"text_loss": self.text_weight, "flow_loss": self.flow_weight}
        sources = {source for source, _ in means}
        logged["val/loss"] = sum(weight[name] * value for (_, name), value in means.items()) / max(1, len(sources))
        self.validation_results = logged
        self.log_dict(logged, rank_zero_only=True)

    def _shift(self) -> float:
        return self.flow.noise_shift(self.vision.num_tokens, self.vision.channels)

    def _count(self, means: SourceMeans, batch: PackedBatch, losses: Losses) -> None:
        text_sources = batch.source_ids.flatten()[batch.predicted_positions]
        means.add("text_loss", losses.text, text_sources, batch.sources)
        means.add("flow_loss", losses.flow, batch.frame_source_ids[batch.drawn_frames], batch.sources)

    def decoder(self) -> Decoder:
        """Writes text and draws frames with the present weights, for `predict` and callbacks."""
        return Decoder(self.used_model, self.vision, self.flow, self.sampler, self.tokenizer)

    # ---- checkpoints: the frozen tokenizer is named in them, not stored

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record the fingerprints of both tokenizers."""
        self.check_finite.flush()  # what a picture without finite latents has spoilt is not saved
        checkpoint["vision"] = self.vision.fingerprint()
        checkpoint["text_tokenizer"] = self.tokenizer.fingerprint()
        if self.loss_centering is not None:
            checkpoint["loss_centering"] = self.loss_centering.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse other visual tokens, other text ids and other shapes."""
        check_tokenizers(checkpoint, self.vision.fingerprint(), self.tokenizer.fingerprint())
        if self.loss_centering is not None and "loss_centering" in checkpoint:
            self.loss_centering.load_state_dict(checkpoint["loss_centering"])
        # Lightning restores the number of steps for a fit only; results are named by it. Exported weights have none.
        if self.trainer.validating and "loops" in checkpoint:
            self.trainer.fit_loop.load_state_dict(checkpoint["loops"]["fit_loop"])
        weights = checkpoint.get("state_dict")
        if weights is None:  # the strategy has loaded them
            return
        check_shapes(shapes_of(weights), shapes_of(self.state_dict()))
        fit_average(weights, wanted=self.averaged is not None)


def _sum(so_far: Tensor | None, more: Tensor | None) -> Tensor | None:
    """Of counts, where there are any; float64, in which no count is too large."""
    if more is None:
        return so_far
    return more.double() if so_far is None else so_far + more


def _leave_vision_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for name in [name for name in state if name.startswith(prefix + "vision.")]:
        del state[name]

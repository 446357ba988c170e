"""How the trained model of a LightningModule is built, sharded, averaged, and named in checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from lit_mm.backbone.transformer import Transformer
from lit_mm.frozen import freeze
from lit_mm.mistake import Mistake
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.parallel import Fsdp2Strategy, Parallelize, tensors
from lit_mm.parallel.checkpoint_checks import check_shapes, check_tokenizers, fit_average, shapes_of
from lit_mm.parallel.starting_weights import load_starting_weights
from lit_mm.precision import compute_dtype
from lit_mm.tokenizer import Tokenizer
from lit_mm.training.state import TrainingState
from lit_mm.vision.base import VisualTokenizer
from lit_mm.vision.contract import check_sizes

VOCABULARY_MULTIPLE = 128  # a model's vocabulary may be the tokenizer's, rounded up to a multiple of this


class BuildsModel(LightningModule):
    """The building half of `LitMultimodal`, which describes the arguments.

    Attributes:
        model: the trained model, from `configure_model` on.
        averaged: the same with averaged weights, where a callback keeps any.
        state: see `TrainingState`.
        compute_dtype: of the model and the visual tokenizer, by the trainer's precision; without a trainer float32,
            unless it is set before the model is built.
    """

    model: MultimodalTransformer

    def __init__(
        self,
        backbone: Callable[[int], Transformer],
        vision: VisualTokenizer,
        vocab_size: int,
        embed_places: bool,
        parallelize: Parallelize | None,
        start_from: str | None,
    ) -> None:
        super().__init__()
        check_sizes(vision)
        self.make_backbone, self.vocab_size, self.embed_places = backbone, vocab_size, embed_places
        self.vision = freeze(vision)
        self.parallelize = parallelize or Parallelize()
        self.start_from = start_from
        self.averaged: MultimodalTransformer | None = None
        self.state = TrainingState()
        self.compute_dtype = torch.float32
        self.register_state_dict_post_hook(_leave_vision_out)
        self.strict_loading = False  # `check_shapes` is strict, and knows what may be missing

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> NoReturn:
        """Not this way: a checkpoint holds its configuration as text, which `lit_mm.load` builds the model from.

        Raises:
            Mistake: always.
        """
        raise Mistake(f"use lit_mm.load('{checkpoint_path}'), which builds the model that the checkpoint describes")

    # The data side is told by the CLI how large a picture is and how many tokens it takes.
    @property
    def image_size(self) -> int:
        """Side of the pictures, in pixels."""
        return self.vision.image_size

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of a picture."""
        return self.vision.num_tokens

    @property
    def tokenizer(self) -> Tokenizer:
        """The data module's."""
        return self.trainer.datamodule.format.tokenizer  # type: ignore[attr-defined]

    @property
    def used_model(self) -> MultimodalTransformer:
        """The model in use: outside of training the one with averaged weights, if there is one."""
        return self.model if self.training or self.averaged is None else self.averaged

    def setup(self, stage: str) -> None:
        """Check that the model's vocabulary is the tokenizer's."""
        size = self.tokenizer.vocab_size
        rounded = -(-size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
        if self.vocab_size not in (size, rounded):
            raise Mistake(
                f"model.vocab_size is {self.vocab_size} but the tokenizer '{self.tokenizer.path}' has {size} entries; "
                f"set it to {size}" + (f" or {rounded}" if rounded != size else "")
            )

    def configure_model(self) -> None:
        """Build the trainable part; called inside the strategy's context, so that it may be made sharded."""
        if hasattr(self, "model"):
            return
        if self._trainer is not None:
            self.compute_dtype = compute_dtype(self.trainer.precision)
        self.vision.compute_in(self.compute_dtype)
        self.model = self._build()
        if self.start_from is not None and self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            tokenizers = self.vision.fingerprint(), self.tokenizer.fingerprint()
            load_starting_weights(self.model, self.start_from, *tokenizers)
        if self.state.averages_weights:
            self.averaged = freeze(self._build())
            self.restart_average()

    def new_model(self) -> MultimodalTransformer:
        """The configured model, on whatever device is the default."""
        return MultimodalTransformer(
            self.make_backbone(self.vocab_size),
            self.vocab_size,
            self.vision.channels,
            self.vision.read_channels,
            places=self.vision.num_tokens if self.embed_places else None,
            compute_dtype=self.compute_dtype,
        )

    def _build(self) -> MultimodalTransformer:
        with torch.device("meta"):
            model = self.new_model()
        strategy = self.trainer.strategy if self._trainer is not None else None
        if isinstance(strategy, Fsdp2Strategy):
            self.parallelize(model, strategy.root_device, strategy.sharding)
        else:
            self.parallelize(model, torch.get_default_device())
        return model

    @torch.no_grad()
    def restart_average(self) -> None:
        """Let the averaged weights begin at the present ones."""
        assert self.averaged is not None
        for average, value in zip(tensors(self.averaged), tensors(self.model), strict=True):
            average.copy_(value)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record the fingerprints of both tokenizers: the frozen one is named in a checkpoint, not stored."""
        checkpoint["vision"] = self.vision.fingerprint()
        checkpoint["text_tokenizer"] = self.tokenizer.fingerprint()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse other visual tokens, other text ids and other shapes."""
        check_tokenizers(checkpoint, self.vision.fingerprint(), self.tokenizer.fingerprint())
        # Lightning restores the number of steps for a fit only; results are named by it. Exported weights have none.
        if self.trainer.validating and "loops" in checkpoint:
            self.trainer.fit_loop.load_state_dict(checkpoint["loops"]["fit_loop"])
        weights = checkpoint.get("state_dict")
        if weights is None:  # the strategy has loaded them
            return
        check_shapes(shapes_of(weights), shapes_of(self.state_dict()))
        fit_average(weights, wanted=self.averaged is not None)


def _leave_vision_out(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    for name in [name for name in state if name.startswith(prefix + "vision.")]:
        del state[name]

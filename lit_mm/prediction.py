"""What `predict` does: prompts in, answers out, on one process or many."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule

from lit_mm.building import BuildsModel
from lit_mm.generation.answers import Answered, answer_all
from lit_mm.generation.decoding import Decoder
from lit_mm.prompt import FailedPrompt, Prompt


class AnswersPrompts(BuildsModel):
    """The predicting half of `LitMultimodal`.

    Attributes:
        failed_prompts: of all processes, after predict.
        prompts_seen: by all of them, those that failed among them.
    """

    failed_prompts: list[FailedPrompt]
    prompts_seen: int

    @abstractmethod
    def decoder(self) -> Decoder:
        """Writes text and draws frames with the present weights."""

    def on_predict_start(self) -> None:
        """Where the model is sharded, gather it whole: prompts take different numbers of passes on each process."""
        self.failed_prompts, self.prompts_seen = [], 0
        for module in self.decoder().model.modules():
            if isinstance(module, FSDPModule):
                module.set_reshard_after_forward(False, recurse=False)
                module.unshard()

    def predict_step(self, prompts: Sequence[Prompt | FailedPrompt], batch_idx: int) -> list[Answered]:
        """Answer some prompts, decoded together; those that cannot be answered say why."""
        context = self.trainer.datamodule.loader.row_length  # type: ignore[attr-defined]
        answered = answer_all(self.decoder(), prompts, context)
        self.prompts_seen += len(answered)
        self.failed_prompts += [answer for answer in answered if isinstance(answer, FailedPrompt)]
        return answered

    def on_predict_end(self) -> None:
        """Let every process know of every failure: all of them have to end as failed."""
        if self.trainer.world_size > 1:
            seen: list[Any] = [None] * self.trainer.world_size
            dist.all_gather_object(seen, (self.prompts_seen, self.failed_prompts))
            self.prompts_seen = sum(count for count, _ in seen)
            self.failed_prompts = [failed for _, several in seen for failed in several]

"""From one device to many: how the model is built, sharded, checkpointed and compiled."""

from lit_mm.parallel.checkpoint_files import CheckpointFiles
from lit_mm.parallel.parallelize import Parallelize, tensors
from lit_mm.parallel.strategy import Fsdp2Strategy

__all__ = ["CheckpointFiles", "Fsdp2Strategy", "Parallelize", "tensors"]

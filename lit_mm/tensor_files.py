"""Tensors as files that everybody may read who may read other files of this user."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file with the mode that new files get here, where safetensors would let its owner alone read.

    Args:
        tensors: contiguous, by name.
        path: of the file; what is there is overwritten.
        metadata: texts for its header.
    """
    from safetensors.torch import save_file

    path.unlink(missing_ok=True)
    path.touch()
    mode = path.stat().st_mode & 0o777
    save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    path.chmod(mode)

"""Whether a source is still the one that a run began with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_modules.dataset import DocumentDataset
from data_modules.mixing.permutation import key_of


def fingerprint_of(dataset: DocumentDataset, count: int) -> int:
    """Of the lengths of the first `count` documents."""
    return key_of(_sample(dataset, count).tobytes().hex())


def _sample(dataset: DocumentDataset, count: int) -> np.ndarray:
    return dataset.lengths[:, : count : max(1, count // 4096)]


def contents_of(dataset: DocumentDataset, count: int | None = None) -> list[int]:
    """How many files the documents are from, and a hash of their names and sizes.

    Folders and times do not count: data may be copied to another machine.

    Args:
        dataset: the documents.
        count: of the first so many files; of all by default.
    """
    files = [(os.path.basename(path), size) for path, size, _ in dataset.files][:count]
    return [len(files), key_of(files)]


def compare(before: Mapping[str, Any], name: str, dataset: DocumentDataset) -> tuple[str | None, bool]:
    """What has become of a source since a state was stored, for the log, and whether its draws can go on.

    Args:
        before: the state of its draws (see `DrawStream.state`).
        name: of the source.
        dataset: its documents as they are now.
    """
    count, size = before["documents"], len(dataset)
    same_lengths = count <= size and before["fingerprint"] == fingerprint_of(dataset, count)
    files = before.get("files", contents_of(dataset))
    same_files = files == contents_of(dataset, files[0])
    if same_lengths and count == size:
        if same_files and files[0] == len(dataset.files):
            return None, True
        return f"source '{name}' has other files than before, with documents of the same lengths: it goes on", True
    sizes = f"source '{name}' had {count} documents and now has"
    # Lengths that are all the same tell nothing of which documents they are.
    known = same_files or len(np.unique(_sample(dataset, count))) > len(dataset.lengths)
    if same_lengths and known and dataset.appends:
        return f"{sizes} {size}: it goes on, the new ones among the rest", True
    return f"{sizes} {'of other lengths' if count == size else size}: it starts again at its first document", False

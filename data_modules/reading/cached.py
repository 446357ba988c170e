"""Results that are made once and kept in the `datasets` cache, until what they were made of or the code changes."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from filelock import FileLock

from data_modules.reading.cache_folder import writable
from data_modules.reading.code import code_of, identity
from data_modules.reading.files import warn
from data_modules.reading.findings import note_cache
from lit_mm.mistake import Mistake

LARGE = 100_000  # rows that are worth a progress bar
MANY = 100  # files that are
FULL = (errno.ENOSPC, errno.EDQUOT)


def mapped(
    rows: datasets.Dataset,
    function: Callable[..., dict[str, list]],
    settings: Mapping[str, Any],
    features: datasets.Features,
    says: str,
    batch_size: int = 1000,
    with_indices: bool = False,
) -> datasets.Dataset:
    """`rows.map`, cached by the rows, the settings and the function's code.

    Where several processes or nodes share the cache, one makes it and the others wait. Tokenizers use all cores by
    threads; `num_proc` would fork a process that has threads, whose child may wait for a lock forever.

    Args:
        rows: what is read.
        function: turns a batch of rows into one of new rows.
        settings: its other arguments.
        features: of the new rows.
        says: what is being done, for the progress bar.
        batch_size: rows of a batch. New rows are stored batch by batch, and many small ones are slow to look up.
        with_indices: whether the function wants the numbers of the rows too.
    """
    made_of = identity(rows._fingerprint, code_of(function), settings)
    if not len(rows):
        return _empty(features)

    def make() -> datasets.Dataset:
        return rows.map(
            function,
            fn_kwargs=dict(settings),
            with_indices=with_indices,
            batched=True,
            batch_size=batch_size,
            remove_columns=rows.column_names,
            features=features,
            new_fingerprint=made_of,
            desc=says,
        )

    with FileLock(usable_cache() / f"{made_of}.lock"), progress(len(rows) >= LARGE), _needs_room():
        return _made_or_reused(make, Path(rows._get_cache_file_path(made_of)) if rows.cache_files else None)


def _made_or_reused(make: Callable[[], datasets.Dataset], file: Path | None) -> datasets.Dataset:
    """What `make` gives, which may be in a file or folder already. A cache that is damaged is made anew."""
    try:
        found = make()
    except (pa.ArrowException, OSError, ValueError) as error:
        if file is None or not file.exists() or _is_full(error):
            raise
        warn("the cache '%s' is damaged and is made anew", file)
        shutil.rmtree(file) if file.is_dir() else file.unlink()
        found = make()
    for made in found.cache_files:
        note_cache(Path(made["filename"]))
    return found


def generated(
    function: Callable[..., Iterator[dict[str, Any]]],
    items: Sequence[Any],
    settings: Mapping[str, Any],
    features: datasets.Features,
    first: Callable[[], None] | None = None,
) -> datasets.Dataset:
    """Rows that a generator yields, cached by its arguments and its code.

    Args:
        function: yields the rows of some items: `function(items=…, **settings)`. It is called for each item alone.
        items: rows are in their order. They say all that the rows depend on.
        settings: the other arguments.
        features: of the rows.
        first: what is done before, where the rows are not there yet.
    """
    made_of = identity(items, code_of(function), settings, str(features))

    def make() -> datasets.Dataset:
        return datasets.Dataset.from_generator(
            function,
            features=features,
            gen_kwargs={"items": list(items), **settings},
            fingerprint=made_of,
        )

    made = next(usable_cache().glob(f"generator/*{made_of}*"), None)
    if made is None and first is not None:
        first()
    if made is None and next(iter(function(items=list(items), **settings)), None) is None:
        return _empty(features)
    with progress(len(items) >= MANY), _needs_room():
        return _made_or_reused(make, made)


@contextmanager
def _needs_room() -> Iterator[None]:
    """Say that the disk is full in place of what `datasets` makes of it."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not _is_full(cause):
            cause = cause.__cause__
        if not isinstance(cause, OSError):
            raise
        raise Mistake(
            f"data.loader.cache: nothing can be written in '{datasets.config.HF_DATASETS_CACHE}' "
            f"({os.strerror(cause.errno or errno.ENOSPC)}); name a folder with room"
        ) from error


def _is_full(error: BaseException) -> bool:
    """Whether a disk is full, in the system's words or in those of `datasets`, which looks before it writes."""
    return isinstance(error, OSError) and (error.errno in FULL or str(error).startswith("Not enough disk space"))


def _empty(features: datasets.Features) -> datasets.Dataset:
    """No rows, which `datasets` neither makes nor maps."""
    return datasets.Dataset.from_dict({name: [] for name in features}, features)


def usable_cache() -> Path:
    """The folder of the `datasets` cache, made if it is not there.

    Raises:
        Mistake: it cannot be made, or nothing can be written there.
    """
    return writable(Path(datasets.config.HF_DATASETS_CACHE), "HF_DATASETS_CACHE or HF_HOME")


@contextmanager
def progress(shown: bool) -> Iterator[None]:
    """Let `datasets` show how far it is, or not; what it has already is not made again and shows nothing."""
    before = datasets.are_progress_bars_disabled()
    (datasets.enable_progress_bars if shown else datasets.disable_progress_bars)()
    try:
        yield
    finally:
        (datasets.disable_progress_bars if before else datasets.enable_progress_bars)()

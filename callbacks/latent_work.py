"""What there is to encode before training: pictures of all sources, what of it is done, and doing the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from data_modules.base import DocumentDataModule
from data_modules.index.shared_folder import SharedFolder
from data_modules.index.storage import is_remote
from data_modules.mixing.stages import ever_drawn
from data_modules.reading.latent_making import make_shards
from data_modules.reading.latent_shards import ENDING, KEY, Encoder, StoredType
from data_modules.reading.latent_table import Found, identities_of, look_for
from data_modules.reading.picture_source import PictureSource
from data_modules.source import Split
from lit_mm.mistake import Mistake
from lit_mm.vision.base import VisualTokenizer
from lit_mm.vision.latents import FiniteCheck, encode_to_store, stored_channels


@dataclass(frozen=True)
class LatentFolder:
    """Where latents are kept, and how they are made.

    Args:
        folder: a folder, or its URL.
        dtype: number format there.
        batch_size: pictures encoded at once.
        shard_size: megabytes of a file.

    Raises:
        Mistake: a number is not above 0.
    """

    folder: str
    dtype: StoredType = "float32"
    batch_size: int = 64
    shard_size: float = 512.0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.shard_size <= 0:
            raise Mistake(
                f"callbacks.LatentCache: batch_size is {self.batch_size} and shard_size {self.shard_size}; both are "
                "above 0"
            )


@dataclass(frozen=True)
class Cached:
    """A source's pictures, and the folder of their latents."""

    split: Split
    name: str
    pictures: PictureSource
    keys: np.ndarray
    folder: SharedFolder


class LatentWork:
    """Latents of all pictures that a run shows, by one visual tokenizer, in one folder.

    Args:
        data: whose pictures.
        vision: the tokenizer.
        latents: where they are kept.

    Attributes:
        encoder: what latents depend on besides their pictures.
        folder: of this encoder.
        pictures_of_shard: how many go into a file.
    """

    def __init__(self, data: DocumentDataModule, vision: VisualTokenizer, latents: LatentFolder) -> None:
        self.data, self.vision, self.latents = data, vision, latents
        self.encoder = Encoder(vision.fingerprint(), vision.num_tokens, stored_channels(vision), latents.dtype)
        whole = latents.folder
        whole = whole if is_remote(whole) else str(Path(whole).expanduser().absolute())
        self.folder = SharedFolder(f"{whole.rstrip('/')}/{self.encoder.name}", ".json", KEY)
        self.pictures_of_shard = max(1, int(latents.shard_size * 2**20) // self.encoder.picture_bytes)

    def sources(self, splits: Iterable[Split]) -> list[Cached]:
        """All that have pictures and are drawn from.

        Raises:
            Mistake: one cuts its pictures anew whenever they are drawn.
        """
        found = []
        for split in splits:
            for name, dataset in self.data.datasets[split].items():
                mixture, pictures = self.data.mixture, dataset.pictures
                if pictures is None or (split == "train" and not ever_drawn(name, mixture.weights, mixture.stages)):
                    continue
                if pictures.cut_anew:
                    raise Mistake(
                        f"callbacks.LatentCache encodes every picture once, but source '{name}' cuts another part out "
                        "of it each time it is drawn: leave the callback out, or set the source's crop.rule to centre"
                    )
                folder = SharedFolder(f"{self.folder.path}/{split}/{name}", ENDING, KEY)
                found.append(Cached(split, name, pictures, dataset.picture_keys(), folder))
        return found

    def look(self, one: Cached, some: np.ndarray | None = None) -> Found:
        """See what there is of a source's latents.

        Args:
            one: the source.
            some: the keys of its pictures that are meant; all of them by default.
        """
        keys, loader = one.keys if some is None else some, self.data.loader
        identities = identities_of(one.pictures, keys)
        return look_for(keys, identities, one.folder, self.encoder, loader.folder, loader.range_cache)

    def check_room(self, cached: Sequence[Cached], found: Sequence[Found]) -> None:
        """Refuse what cannot be made.

        Raises:
            Mistake: nothing can be written there, or the disk has no room for what is missing.
        """
        for one, some in zip(cached, found, strict=True):
            if len(some.missing) and not one.folder.is_writable:
                raise Mistake(
                    f"{KEY}: '{one.folder.path}' lacks {len(some.missing)} of {len(one.keys)} pictures of the source "
                    f"'{one.name}' ({one.split}), and over HTTP nothing is written; make them with python -m "
                    "callbacks.latent_cache in the folder that is served there"
                )
        still, room = self._missing_bytes(found), self.folder.room()
        if room is not None and still > room:
            raise Mistake(
                f"{KEY}: '{self.folder.path}' still needs {in_words(still)}, but its disk has {in_words(room)} free; "
                "give a folder on another disk, or a 16-bit dtype"
            )

    def _missing_bytes(self, found: Sequence[Found]) -> int:
        return sum(len(one.missing) for one in found) * self.encoder.picture_bytes

    def shards_of(self, keys: np.ndarray) -> list[np.ndarray]:
        """Pictures that are encoded into one file each."""
        return [keys[start : start + self.pictures_of_shard] for start in range(0, len(keys), self.pictures_of_shard)]

    def encode(self, work: Sequence[tuple[Cached, list[np.ndarray]]], device: torch.device, shown: bool) -> None:
        """Encode pictures.

        Args:
            work: sources, and the keys of the pictures of each file.
            device: that computes.
            shown: whether a bar shows how far it is.

        Raises:
            NonFiniteLatents: the tokenizer makes NaN or infinity of a picture.
            BrokenFile: a picture cannot be read.
            Mistake: nothing can be written.
        """
        if not any(shards for _, shards in work):
            return
        loader = self.data.loader
        self.folder.put("encoder.json", lambda file: file.write_text(self.encoder.text))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with _Encoder(self.vision, device) as encode, Progress(*columns, disable=not shown) as bar:
            for one, shards in work:
                total = sum(map(len, shards))
                task = bar.add_task(f"encoding {one.name} ({one.split})", total=total, visible=total > 0)
                make_shards(
                    one.folder,
                    self.encoder,
                    shards,
                    one.pictures,
                    encode,
                    batch_size=self.latents.batch_size,
                    workers=loader.workers,
                    on_error=loader.on_error,
                    advance=partial(bar.advance, task),
                )

    def say(self, cached: Sequence[Cached], found: Sequence[Found]) -> str:
        """What the latents take, and what of it is still to be made or no longer used."""
        size, still = self.encoder.picture_bytes, self._missing_bytes(found)
        pictures, unused = sum(len(one.keys) for one in cached), sum(one.unused for one in found)
        return (
            f"latent cache '{self.folder.path}': {pictures} pictures in {in_words(pictures * size)} of "
            f"{self.encoder.dtype}, "
            + (f"{in_words(still)} of it still to be made" if still else "all of it there")
            + (f"; {in_words(unused * size)} besides is of pictures that are no longer shown" if unused else "")
        )


class _Encoder:
    """The tokenizer on its device, in float32, for as long as latents are made."""

    def __init__(self, vision: VisualTokenizer, device: torch.device) -> None:
        self.vision, self.device = vision, device
        self.check = FiniteCheck(vision.fingerprint())

    def __enter__(self) -> _Encoder:
        self.vision.to(self.device)
        return self

    def __exit__(self, *error: object) -> None:
        self.vision.to("cpu")  # where it was: the strategy moves it together with the model

    def __call__(self, images: Tensor, origins: Sequence[str]) -> Tensor:
        latents = encode_to_store(self.vision, images.to(self.device))
        self.check([latents], origins)
        self.check.flush()  # now: they are copied to the CPU next, which waits for them anyway
        return latents


def in_words(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"

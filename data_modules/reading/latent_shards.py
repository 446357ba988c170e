"""Files of latents: some pictures each, with the numbers that say which pictures they are of.

A file is safetensors: `latents` (n, tokens, channels), and `identities` (n,) int64, whose bits are those of
`PictureSource.identities`. Its metadata name the visual tokenizer, and the pictures that could not be read. Its own
name is made of the identities, so whoever makes the same file twice makes the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.index.ranges import RangeReader
from data_modules.index.shared_folder import SharedFolder
from data_modules.index.storage import InputFile, UnreachedFile
from lit_mm.mistake import Mistake
from lit_mm.tensor_files import save_tensors

LAYOUT = 2  # of the files; a new number gives encoders other folders
ENDING = ".safetensors"
HEAD = 1 << 14  # bytes that are asked for at once, in which most headers end
KEY = "callbacks.LatentCache.folder"

StoredType = Literal["float32", "float16", "bfloat16"]
_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # in the header of a file


class StaleLatents(Mistake):
    """A file of latents that cannot be used."""


@dataclass(frozen=True)
class Encoder:
    """What latents depend on besides their pictures: equal encoders, equal latents.

    Args:
        tokenizer: fingerprint of the visual tokenizer.
        tokens: of a picture.
        channels: of a stored token.
        dtype: number format on disk.
    """

    tokenizer: str
    tokens: int
    channels: int
    dtype: StoredType

    @property
    def picture_bytes(self) -> int:
        """Bytes of one picture's latents."""
        return self.tokens * self.channels * getattr(torch, self.dtype).itemsize

    @property
    def name(self) -> str:
        """Name of its folder, such as `rae-3f0c2ab94d17-float16`."""
        made_of = repr((LAYOUT, self.tokenizer, self.tokens, self.channels)).encode()
        kind = re.sub(r"[^a-z0-9_]", "", self.tokenizer.partition(":")[0].lower())[:20] or "encoder"
        return f"{kind}-{hashlib.sha256(made_of).hexdigest()[:12]}-{self.dtype}"

    @property
    def text(self) -> str:
        """What it is, for people who look into its folder."""
        return json.dumps(asdict(self), indent=2) + "\n"


@dataclass(frozen=True)
class Shard:
    """One file of latents, whose header was read.

    Args:
        file: as it was then.
        count: its pictures.
        latents: the first byte of the latents.
        identities: the first byte of the identities.
        broken: path and reason of the pictures that could not be read, by their row.
    """

    file: InputFile
    count: int
    latents: int
    identities: int
    broken: Mapping[int, tuple[str, str]]


def open_shard(file: InputFile, encoder: Encoder, ranges: RangeReader) -> Shard:
    """Read the header of a file.

    Raises:
        StaleLatents: it is not whole, or holds other latents.
        UnreachedFile: its storage does not give it.
    """
    try:
        head = ranges.read(file, 0, min(HEAD, file.size))
        length = int.from_bytes(head[:8], "little")
        if not 2 <= length <= file.size - 8:
            raise ValueError("it is cut")
        if 8 + length > len(head):
            head += ranges.read(file, len(head), 8 + length - len(head))
        return _shard(file, json.loads(head[8 : 8 + length]), 8 + length, encoder)
    except UnreachedFile:
        raise
    except (BrokenFile, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.reason if isinstance(error, BrokenFile) else str(error)
        raise StaleLatents(
            f"'{file.path}' of the latent cache cannot be used ({reason}); delete it to have it made again"
        ) from error


def _shard(file: InputFile, header: dict[str, Any], start: int, encoder: Encoder) -> Shard:
    metadata = header.pop("__metadata__")
    latents, identities = header["latents"], header["identities"]
    if metadata["tokenizer"] != encoder.tokenizer:
        raise ValueError(f"it is of the visual tokenizer '{metadata['tokenizer']}' and not of '{encoder.tokenizer}'")
    count = identities["shape"][0]
    shape, size = [count, encoder.tokens, encoder.channels], count * encoder.picture_bytes
    ends = latents["data_offsets"][1] - latents["data_offsets"][0], max(e["data_offsets"][1] for e in header.values())
    found, wanted = [latents["dtype"], latents["shape"]], [_NAMES[encoder.dtype], shape]
    if found != wanted or ends[0] != size:
        raise ValueError(f"it holds latents {found} and not {wanted}")
    if start + ends[1] != file.size:
        raise ValueError("it is cut")
    broken = {int(row): (path, reason) for row, (path, reason) in json.loads(metadata["broken"]).items()}
    return Shard(file, count, start + latents["data_offsets"][0], start + identities["data_offsets"][0], broken)


def identities_in(shard: Shard, ranges: RangeReader) -> np.ndarray:
    """(n,) uint64, which pictures a file is of."""
    return np.frombuffer(ranges.read(shard.file, shard.identities, 8 * shard.count), np.uint64)


def write_shard(
    folder: SharedFolder,
    encoder: Encoder,
    identities: np.ndarray,
    latents: Tensor,
    broken: Mapping[int, tuple[str, str]],
) -> None:
    """Store the latents of some pictures.

    Args:
        folder: where to.
        encoder: what made them.
        identities: (n,) uint64, of the pictures.
        latents: (n, tokens, channels); of any value where pictures are broken.
        broken: path and reason of pictures that could not be read, by their row.

    Raises:
        Mistake: they cannot be written.
    """
    tensors = {
        "identities": torch.from_numpy(identities.view(np.int64)),
        "latents": latents.to("cpu", getattr(torch, encoder.dtype)).contiguous(),
    }
    metadata = {"tokenizer": encoder.tokenizer, "broken": json.dumps(broken)}
    name = hashlib.sha256(identities.tobytes()).hexdigest()[:32] + ENDING

    def write(file: Path) -> None:
        save_tensors(tensors, file, metadata)

    folder.put(name, write)

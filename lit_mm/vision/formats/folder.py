"""An autoencoder as a folder: written so that `Rae` and diffusers load it, read in any published format.

What training writes is a folder of diffusers' `AutoencoderRAE`, with two files beside it for us:

    config.json                              arguments of AutoencoderRAE
    diffusion_pytorch_model.safetensors      its weights, the encoder's under the names of transformers
    rae.json                                 the autoencoder as it was trained (`RaeConfig`)
    rae.safetensors                          what cannot be read back bit for bit: a small encoder's position table

`rae.json` lets us cut the zeros off again that AutoencoderRAE's fixed sizes ask for (`diffusers_writing`), so saving
and loading changes no bit and no fingerprint. (`AutoencoderRAE.from_pretrained` keeps weights in the precision they
are stored in; `.float()` after it gives what `Rae` computes with.)

Those zeros weigh: a SigLIP encoder of width 256 with MLPs of 1024 units is stored with 3072, and with a pooling head
nobody uses, which in float16 is 2.1 MB for each layer and 3.7 MB for the head, more than the encoder itself. Hence the
second form, `compact`, which only `Rae` loads:

    config.json                              `RaeConfig`
    model.safetensors                        `encoder.…` under timm's names, `decoder.…`, `statistics.…`

It is what comes with the package, and what is written for encoders that AutoencoderRAE cannot hold. Loading a folder
and saving it again turns one form into the other.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_mm.mistake import MissingFile, Mistake
from lit_mm.tensor_files import save_tensors
from lit_mm.vision.encoder import TimmEncoder
from lit_mm.vision.formats.checkpoint import copy_tensors, find_weights, named, read_json, read_tensors
from lit_mm.vision.formats.diffusers_format import (
    DIFFUSERS_WEIGHTS,
    is_diffusers,
    read_diffusers,
    read_diffusers_statistics,
    read_diffusers_tensors,
    read_settings,
)
from lit_mm.vision.formats.diffusers_writing import obstacle, stored, write_diffusers
from lit_mm.vision.formats.published import PUBLISHED_WEIGHTS, check_last_norm, read_published_decoder
from lit_mm.vision.rae_network import RaeConfig, RaeNetwork, build_decoder
from lit_mm.vision.statistics import LatentStatistics, read_statistics

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_rae import RAEDecoder

SHIPPED = Path(__file__).parents[1] / "weights"
WEIGHTS = "model.safetensors"
DESCRIPTION, EXACT = "rae.json", "rae.safetensors"
# May be left out of a config.json: without them an encoder is what timm's name says.
_OPTIONAL = {"encoder_input_size", "encoder_args", "encoder_layers", "encoder_norm_eps", "encoder_norm_affine"}


def save_folder(
    network: RaeNetwork, folder: str | Path, dtype: torch.dtype = torch.float32, compact: bool = False
) -> Path:
    """Write `network` to `folder`, for `Rae` and for diffusers.

    Args:
        network: encoder, statistics and decoder.
        folder: is made if it does not exist.
        dtype: number format of the stored weights; statistics are always stored in float32.
        compact: leave out what only diffusers needs; then only `Rae` loads the folder.

    Raises:
        Mistake: a weight is not finite, or not in `dtype`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensor in network.state_dict().items():
        if not bool(tensor.to(dtype).isfinite().all()):
            raise Mistake(f"'{name}' holds values that are not finite in {dtype}; nothing was saved to '{folder}'")
    for file in (WEIGHTS, DIFFUSERS_WEIGHTS, DESCRIPTION, EXACT):
        (folder / file).unlink(missing_ok=True)  # of another form, or of an earlier autoencoder
    if not compact:
        reason = obstacle(network)
        if reason is None:
            _save_for_both(network, folder, dtype)
            return folder
        warnings.warn(f"'{folder}' is for vision.Rae alone, not for diffusers' AutoencoderRAE: {reason}", stacklevel=2)
    _save_compact(network, folder, dtype)
    return folder


def _save_for_both(network: RaeNetwork, folder: Path, dtype: torch.dtype) -> None:

    exact = write_diffusers(network, folder, dtype)
    if exact:
        save_tensors(exact, folder / EXACT, metadata={"format": "pt"})
    _write_json(folder / DESCRIPTION, asdict(network.config))


def _save_compact(network: RaeNetwork, folder: Path, dtype: torch.dtype) -> None:

    tensors = {f"encoder.{name}": tensor for name, tensor in stored(network.encoder.vit, dtype).items()}
    tensors |= {f"decoder.{name}": tensor for name, tensor in stored(network.decoder, dtype).items()}
    tensors |= {f"statistics.{name}": t for name, t in stored(network.statistics, torch.float32).items()}
    save_tensors(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    _write_json(folder / "config.json", asdict(network.config))


def _write_json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf8")


def load_folder(folder: str | Path) -> RaeNetwork:
    """Read an autoencoder in either form that `save_folder` writes, or as diffusers saves it, in float32.

    Raises:
        MissingFile: the folder or one of its files does not exist.
        Mistake: a file cannot be read, its keys or shapes are not those of the network it describes, or a value is
            not finite.
    """
    path = find_folder(folder)
    if not is_diffusers(read_json(path / "config.json")):
        return _load_compact(path)
    if not (path / DESCRIPTION).is_file():
        return read_diffusers(path)
    network = read_diffusers(path, _read_config(path / DESCRIPTION))
    if (path / EXACT).is_file():
        _take_exact(network, path / EXACT)
    return network


def _take_exact(network: RaeNetwork, file: Path) -> None:
    """Replace tensors that were read back by those that were saved, which they must be close to."""
    exact = read_tensors(file)
    encoder = {name: tensor for name, tensor in network.encoder.vit.state_dict().items() if name in exact}
    before = {name: tensor.clone() for name, tensor in encoder.items()}
    copy_tensors(encoder, exact, file)
    for name, tensor in before.items():
        if not torch.allclose(tensor, encoder[name], atol=1e-3 * float(tensor.abs().max()), rtol=0):
            raise Mistake(
                f"'{file}' holds another '{name}' than '{DIFFUSERS_WEIGHTS}': one of the two is of a later run"
            )


def _load_compact(path: Path) -> RaeNetwork:
    network = RaeNetwork(_read_config(path / "config.json"))
    file = find_weights(path, (WEIGHTS,))[0]
    tensors = read_tensors(file)
    _take_statistics(tensors, network.statistics, file)
    wanted = {f"encoder.{k}": v for k, v in network.encoder.vit.state_dict().items()}
    wanted |= {f"decoder.{k}": v for k, v in network.decoder.state_dict().items()}
    copy_tensors(wanted, tensors, file)
    return network


def _take_statistics(tensors: dict[str, Tensor], statistics: LatentStatistics, file: Path) -> None:
    """Set statistics from a compact folder's tensors, if it has any, and take them out."""
    found = {name: tensors.pop(name) for name in list(tensors) if name.startswith("statistics.")}
    if found:
        statistics.check({name.removeprefix("statistics."): tensor for name, tensor in found.items()}, f"'{file}'")
        copy_tensors({f"statistics.{k}": v for k, v in statistics.state_dict().items()}, found, file)


def load_decoder(source: str | Path, config: RaeConfig, encoder: TimmEncoder) -> RAEDecoder:
    """The decoder alone, for the tokens of `encoder`.

    Args:
        source: `model.pt` as the RAE collection or Scale-RAE publish it, the folder that it is in, or the folder of an
            autoencoder in any format that `load_folder` reads.
        config: of the autoencoder; its decoder's sizes are replaced by the source's.
        encoder: what the decoder is to draw the tokens of.

    Raises:
        MissingFile: the file, the folder or one of its files does not exist.
        Mistake: a file cannot be read, or the decoder is for other tokens, pictures or pixels, or for tokens of another
            last norm.
    """
    path = Path(source) if Path(source).is_file() else find_folder(source)
    if path.is_file():
        return read_published_decoder(path, config, encoder)
    if (path / PUBLISHED_WEIGHTS).is_file():
        return read_published_decoder(path / PUBLISHED_WEIGHTS, config, encoder)
    if is_diffusers(read_json(path / "config.json")):
        settings = read_settings(path / "config.json")
        for name, ours in (("mean", encoder.pixels.mean), ("std", encoder.pixels.std)):
            theirs = settings[f"encoder_norm_{name}"]
            if not torch.allclose(ours.flatten(), torch.tensor(theirs)):
                raise Mistake(
                    f"the decoder of '{path}' draws pixels of {name} {theirs}, but those of vision.encoder have "
                    f"{[round(value, 4) for value in ours.flatten().tolist()]}: it was trained with another encoder"
                )
        check_last_norm(encoder, path, affine=False)
        tensors, file = read_diffusers_tensors(path, ("decoder.",))
    else:
        settings = asdict(_read_config(path / "config.json"))
        check_last_norm(encoder, path, affine=settings["encoder_norm_affine"])
        file = find_weights(path, (WEIGHTS,))[0]
        tensors = read_tensors(file, ("decoder.",))
    sizes = {f.name: settings[f.name] for f in fields(RaeConfig) if f.name.startswith("decoder_")}
    decoder = build_decoder(replace(config, **sizes), encoder.num_tokens, encoder.channels)
    copy_tensors({f"decoder.{k}": v for k, v in decoder.state_dict().items()}, tensors, file)
    return decoder


def load_statistics(source: str | Path, statistics: LatentStatistics) -> None:
    """Set `statistics` from a `stat.pt` of the RAE collection, or from the folder of an autoencoder.

    Raises:
        MissingFile: the file, the folder or one of its files does not exist.
        Mistake: a statistic is missing, of another shape, in half precision or not finite, or there is none.
    """
    num_tokens, channels = statistics.mean.shape
    if Path(source).is_file():
        statistics.set(*read_statistics(Path(source), channels, round(num_tokens**0.5)))
        return
    path = find_folder(source)
    if is_diffusers(read_json(path / "config.json")):
        settings = read_settings(path / "config.json")
        tensors, file = read_diffusers_tensors(path, ("_latents_",))
        read_diffusers_statistics(settings, tensors, statistics, file)
    else:
        file = find_weights(path, (WEIGHTS,))[0]
        _take_statistics(read_tensors(file, ("statistics.",)), statistics, file)
    if not bool(statistics.mean.any()) and bool((statistics.std == statistics.std[0, 0]).all()):
        raise Mistake(f"'{file}' holds no statistics of latents: their mean is 0 and their deviation is the same")


def find_folder(folder: str | Path) -> Path:
    """`folder` itself, or the one of that name that comes with the package.

    Raises:
        MissingFile: neither exists.
    """
    for path in (Path(folder), SHIPPED / folder):
        if path.is_dir():
            return path
    shipped = ", ".join(sorted(p.name for p in SHIPPED.iterdir() if p.is_dir())) if SHIPPED.is_dir() else "none"
    raise MissingFile(f"vision folder '{folder}' does not exist; those that come with the package: {shipped}")


def _read_config(file: Path) -> RaeConfig:
    values = read_json(file)
    known = {f.name for f in fields(RaeConfig)}
    if wrong := known.symmetric_difference(values) - (_OPTIONAL - values.keys()):
        raise Mistake(f"'{file}' {named(wrong & known, wrong - known)}")
    return RaeConfig(**values)

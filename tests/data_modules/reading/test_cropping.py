"""Random crops are those of torchvision, at a place that the seed of a draw chooses."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import pil_to_tensor, resize

from data_modules.dataset import DocumentFormat, Draw
from data_modules.image_text import ImageTextSource
from data_modules.reading.cropping import Cropping
from data_modules.reading.pictures import read_picture
from lit_mm.mistake import Mistake
from lit_mm.sequence import Document, Frame


def blots(width: int, height: int) -> Image.Image:
    """Smooth, as photographs are, and different everywhere; no resizing overshoots its range."""
    noise = np.random.default_rng(0).integers(60, 190, (height // 3, width // 3, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR)


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("sides", [(90, 60), (60, 90), (48, 48), (301, 77), (20, 17)])
def test_a_crop_is_a_part_of_what_torchvision_resizes(sides: tuple[int, int]) -> None:
    """Of all places in the resized picture there is one that is the crop: RAE's Resize(48) and RandomCrop(32)."""
    image = blots(*sides)
    whole = pil_to_tensor(resize(image, [48], InterpolationMode.BICUBIC)).float()
    windows = whole.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)
    for seed in range(3):
        drawn = read_picture(encoded(image), 32, cut=Cropping("random", 48).cut(seed)).float()
        errors = (windows - drawn).abs().amax((2, 3, 4))
        assert (errors <= 2).sum() == 1


def test_places_are_spread_evenly_and_reach_the_borders() -> None:
    """A picture whose pixels say where they are: left edges of the crops in 48 of 96 pixels, tops in 0 of 48."""
    across = np.tile(np.arange(96, dtype=np.uint8), (48, 1))
    image = Image.fromarray(np.stack([across, across.T[:48, :48].repeat(2, 1)[:, :96], across], -1))
    places = []
    for seed in range(600):
        drawn = read_picture(encoded(image), 32, cut=Cropping("random", 48).cut(seed))
        places.append((int(drawn[0, 0, 0]), int(drawn[1, 0, 0])))
    left = np.array([place[0] for place in places])
    assert (left.min(), left.max()) == (0, 64)
    assert abs(left.mean() - 32) < 3 * 18.8 / 600**0.5


def write_pairs(folder: Path, kind: str) -> Path:
    folder.mkdir()
    pictures = {f"{i}.png": encoded(blots(70 + i, 50)) for i in range(3)}
    if kind == "tar":
        with tarfile.open(folder / "0.tar", "w") as tar:
            for i, (name, content) in enumerate(pictures.items()):
                for member, data in ((name, content), (f"{i}.txt", b"a cube")):
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        return folder / "0.tar"
    for name, content in pictures.items():
        (folder / name).write_bytes(content)
    lines = [json.dumps({"file_name": name, "caption": "a cube"}) for name in pictures]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def picture(document: Document) -> torch.Tensor:
    return next(part.image for part in document.segments if isinstance(part, Frame))


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_training_pictures_are_cut_by_their_draw_and_held_out_ones_at_the_centre(
    kind: str, tmp_path: Path, document_format: DocumentFormat
) -> None:
    path = str(write_pairs(tmp_path / "pairs", kind))
    module = ImageTextSource(train=path, val=path, crop=Cropping("random", 48))
    train, val = (module.dataset(split, "pairs", document_format) for split in ("train", "val"))
    again = ImageTextSource(train=path, crop=Cropping("random", 48)).dataset("train", "pairs", document_format)
    centre = ImageTextSource(train=path).dataset("train", "pairs", document_format)
    assert train is not None
    assert val is not None
    assert again is not None
    assert centre is not None
    shown = [picture(train.document(Draw(1, 0, seed))) for seed in range(8)]
    assert len({image.numpy().tobytes() for image in shown}) > 6
    for seed, image in enumerate(shown):
        assert image.shape == (3, 32, 32)
        assert torch.equal(picture(again.document(Draw(1, 2, seed))), image)  # in any variant, in any process
        middle = picture(centre.document(Draw(1, 0, seed)))
        assert torch.equal(picture(val.document(Draw(1, 0, seed))), middle)
        assert not torch.equal(middle, image)


def test_settings_that_make_no_sense_are_said(tmp_path: Path, document_format: DocumentFormat) -> None:
    with pytest.raises(Mistake, match=r"crop\.short_side is missing and crop\.rule is random: random needs a short_si"):
        Cropping("random")
    with pytest.raises(Mistake, match=r"crop\.short_side is 384 and crop\.rule is centre"):
        Cropping("centre", 384)
    path = str(write_pairs(tmp_path / "pairs", "folder"))
    module = ImageTextSource(train=path, crop=Cropping("random", 24))
    with pytest.raises(Mistake, match=r"data\.crop\.short_side is 24, but must be at least 32, the side of the pictur"):
        module.dataset("train", "pairs", document_format)

from __future__ import annotations

import torch
from torch.nn import functional as F

from lit_mm.vision.training.augment import augment
from tests.vision.training.toys import shapes


def test_augmented_pictures_are_mirrored_and_shifted_originals() -> None:
    generator = torch.Generator().manual_seed(0)
    images = shapes(40, 16)
    assert torch.equal(augment(images, 0, generator), images)
    seen = set()
    for picture, moved in zip(images, augment(images, 2, generator), strict=True):
        padded = F.pad(picture.float(), (2, 2, 2, 2), mode="replicate").to(torch.uint8)
        windows = {
            (y, x, mirrored): (window.flip(-1) if mirrored else window)
            for y in range(5)
            for x in range(5)
            for mirrored in (False, True)
            for window in [padded[:, y : y + 16, x : x + 16]]
        }
        matches = [key for key, window in windows.items() if torch.equal(window, moved)]
        assert matches
        seen.add(matches[0])
    assert len(seen) > 15
    assert {mirrored for _, _, mirrored in seen} == {False, True}

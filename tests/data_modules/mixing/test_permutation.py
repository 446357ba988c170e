"""The shuffle that costs no memory, held against what a shuffle has to be."""

from __future__ import annotations

import numpy as np
import pytest

from data_modules.mixing.permutation import BLOCK, key_of, permute, permute_in_windows


@pytest.mark.parametrize("size", [*range(1, 40), 255, 256, 257, 1000, 4095, 4096, 4097, 65_537])
def test_every_item_comes_once(size: int) -> None:
    for key in (0, 1, key_of("a", size), 2**63 - 1):
        assert np.array_equal(np.sort(permute(np.arange(size), size, key)), np.arange(size))


def test_an_index_does_not_depend_on_the_others_asked_for() -> None:
    whole = permute(np.arange(10_007), 10_007, 5)
    some = np.array([0, 9000, 17, 10_006, 17])
    assert np.array_equal(permute(some, 10_007, 5), whole[some])


def chi_square(counts: np.ndarray) -> float:
    """Squared deviations from equal counts in standard deviations: about N(0, 1) where all are equally likely."""
    expected = counts.sum() / counts.size
    return float((((counts - expected) ** 2 / expected).sum() - (counts.size - 1)) / np.sqrt(2 * (counts.size - 1)))


@pytest.mark.parametrize("size", [40, 100])
def test_passes_put_any_item_anywhere(size: int) -> None:
    orders = np.stack([permute(np.arange(16), size, key_of("pass", p)) for p in range(2000)])
    for position in range(16):
        assert chi_square(np.bincount(orders[:, position], minlength=size)) < 5
    for a, b in ((0, 1), (1, 0), (0, 15), (2, 3)):  # and two places together: all pairs that differ
        pairs = np.bincount(orders[:, a] * size + orders[:, b], minlength=size**2).reshape(size, size)
        assert chi_square(pairs[~np.eye(size, dtype=bool)]) < 5


@pytest.mark.parametrize("size", [2, 5, 12])
def test_a_handful_of_items_is_shuffled_roughly_evenly(size: int) -> None:
    """Few rounds on a few bits are not quite a fair shuffle; no place may be off its share by half."""
    orders = np.stack([permute(np.arange(size), size, key_of("pass", p)) for p in range(2000)])
    counts = np.stack([np.bincount(column, minlength=size) for column in orders.T])
    assert np.abs(counts * size / 2000 - 1).max() < 0.5


@pytest.mark.parametrize("size", [10**6, 3 * 10**8, 10**9, 2**40 + 1])
def test_large_sources_are_spread_evenly_from_the_first_draw_on(size: int) -> None:
    drawn = permute(np.arange(50_000), size, key_of("large", size))
    assert len(np.unique(drawn)) == 50_000
    assert drawn.min() >= 0
    assert drawn.max() < size
    assert chi_square(np.bincount((drawn / size * 500).astype(int), minlength=500)) < 5
    assert chi_square(np.bincount(drawn % 499, minlength=499)) < 5
    steps = np.diff(drawn) % size  # neighbours are no nearer than strangers
    assert chi_square(np.bincount((steps / size * 500).astype(int), minlength=500)) < 5


def test_two_passes_have_nothing_in_common() -> None:
    first, second = (permute(np.arange(10_000), 10_000, key_of(0, "text", "order", p)) for p in (0, 1))
    assert (first == second).sum() < 10
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_keys_tell_parts_apart() -> None:
    parts = [("a", "b"), ("ab",), ("a", "b", ""), ("b", "a"), (1, 2), (12,), (1,)]
    assert len({key_of(*p) for p in parts}) == len(parts)
    assert all(0 <= key_of(i) < 2**63 for i in range(1000))


WINDOW = 8 * BLOCK


@pytest.mark.parametrize("size", [100, WINDOW, WINDOW + 1, 2 * WINDOW - 1, 3 * WINDOW, 40 * BLOCK + 77])
def test_in_windows_every_item_comes_once_in_every_pass(size: int) -> None:
    orders = [permute_in_windows(np.arange(size), size, key_of("pass", p), WINDOW) for p in range(3)]
    for order in orders:
        assert np.array_equal(np.sort(order), np.arange(size))
    assert (orders[0] == orders[1]).mean() < 0.05
    some = np.array([size - 1, 0, size // 2, size - 1])
    assert np.array_equal(permute_in_windows(some, size, key_of("pass", 0), WINDOW), orders[0][some])


def test_a_window_touches_its_share_of_the_shards_and_is_from_everywhere() -> None:
    size, shard = 10**8, 1000
    drawn = permute_in_windows(np.arange(5000, 12_680), size, key_of("pass", 0), 64 * BLOCK)  # 512 ranks of 15 pictures
    touched = np.unique(drawn // shard)
    assert 64 <= len(touched) <= 130  # a block of 1,024 lies in two or three shards of 1,000
    assert len(np.unique(permute(np.arange(7680), size, 1) // shard)) > 7000
    blocks = np.unique(drawn // BLOCK * BLOCK / size * 8)
    assert len(np.unique(blocks.astype(int))) == 8, "the blocks of a window are not neighbours"


def test_in_windows_any_item_can_come_first() -> None:
    size = 20 * BLOCK + 500
    first = np.array([permute_in_windows(np.array([0]), size, key_of("p", p), WINDOW)[0] for p in range(1500)])
    assert chi_square(np.bincount(first * 10 // size, minlength=10)) < 5
    last = np.array([permute_in_windows(np.array([size - 1]), size, key_of("p", p), WINDOW)[0] for p in range(1500)])
    assert chi_square(np.bincount(last * 10 // size, minlength=10)) < 5

import re
import time

import numpy as np
import pytest

from beitv2_mm.datasets import BlockwiseMask, BlockwiseMaskGenerator
from support.golden_masks import (
    assert_same_statistics,
    count_components,
    draw_masks,
    mask_statistics,
    perimeters,
)

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')


@pytest.mark.parametrize(
    ('grid', 'settings'),
    [
        (14, {'num_masked': 75}),
        ((14, 9), {'num_masked': 50}),
        ((4, 21), {'num_masked': 30, 'min_block': 4}),
        (8, {'num_masked': 26, 'min_block': 4, 'max_block': 9}),
        (8, {'num_masked': 64}),
        (8, {'num_masked': 1}),
        ((1, 5), {'num_masked': 2}),
        (32, {'num_masked': 400, 'min_block': 16}),
        (14, {'num_masked': 75, 'min_aspect': 0.5, 'max_aspect': 1.0}),
    ],
)
def test_exact_number_on_any_grid(grid, settings):
    generator = BlockwiseMaskGenerator(grid, **settings)
    for _ in range(200):
        mask = generator()
        assert mask.shape == generator.grid
        assert mask.dtype == bool
        assert mask.sum() == settings['num_masked']


def test_reproducible_by_seed():
    generator = BlockwiseMaskGenerator(14)
    np.random.seed(3)
    first = [generator() for _ in range(3)]
    np.random.seed(3)
    assert np.array_equal(first, [generator() for _ in range(3)])
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize('grid', [14, (6, 11)])
def test_peer_bug_masks_reach_last_row_and_column(grid):
    height, width = (grid, grid) if isinstance(grid, int) else grid
    settings = {'grid': grid, 'num_masked': height * width * 3 // 8, 'min_block': 4}
    frequency = mask_statistics(draw_masks({**settings, 'draws': 4000}))['frequency']
    assert frequency.min() > 0.01
    # the distribution is symmetric: the last row and column are as likely as the first
    assert np.abs(frequency - frequency[::-1]).max() < 0.06
    assert np.abs(frequency - frequency[:, ::-1]).max() < 0.06


def test_statistics_on_known_masks():
    mask = np.zeros((4, 5), bool)
    mask[0, 0] = mask[1, 1] = mask[1, 2] = True
    assert count_components(mask) == 2  # a diagonal neighbour is none
    assert perimeters(mask[None]) == [4 + 6]
    assert perimeters(np.ones((1, 4, 5), bool)) == [18]


def test_statistics_tell_an_exclusive_bound_from_an_inclusive_one():
    settings = {'grid': 10, 'num_masked': 38, 'min_block': 8, 'draws': 3000}
    expected = mask_statistics(draw_masks(settings, seed=1))
    assert_same_statistics(draw_masks(settings, seed=2), expected, settings['draws'])
    shifted = np.pad(draw_masks({**settings, 'grid': 9}), ((0, 0), (0, 1), (0, 1)))
    with pytest.raises(AssertionError, match='frequency'):
        assert_same_statistics(shifted, expected, settings['draws'])


def test_fast_enough():
    generator = BlockwiseMaskGenerator(14)
    times = []
    for _ in range(300):
        start = time.perf_counter()
        generator()
        times.append(time.perf_counter() - start)
    assert np.median(times) < 300e-6  # measured: 60e-6; the margin is for busy machines


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'grid': 4, 'num_masked': 17}, r'num_masked is 17; a grid of 4 x 4 .* 1 to 16'),
        ({'grid': 4, 'num_masked': 0}, 'num_masked is 0'),
        ({'grid': (4, 0)}, r'grid is \(4, 0\)'),
        ({'grid': 14, 'min_block': 16, 'max_block': 4}, 'min_block is 16 and max_block 4'),
        ({'grid': 14, 'min_aspect': -1.0}, 'min_aspect is -1.0'),
        ({'grid': 14, 'min_aspect': 3.0}, 'min_aspect is 3.0'),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        BlockwiseMaskGenerator(**settings)


def test_transform_takes_the_grid_from_the_image():
    transform = BlockwiseMask(patch_size=16, num_masked=10)
    for shape in ((64, 96, 3), (96, 64, 3)):
        mask = transform({'img': np.zeros(shape, np.uint8)})['mask']
        assert mask.shape == (shape[0] // 16, shape[1] // 16)
        assert mask.sum() == 10
    assert BlockwiseMask(patch_size=(8, 16), num_masked=10)(
        {'img': np.zeros((64, 64, 3), np.uint8)}
    )['mask'].shape == (8, 4)
    assert BlockwiseMask(grid=[7, 9], num_masked=20)({})['mask'].shape == (7, 9)
    assert 'num_masked' in repr(transform)


def test_patch_size_that_does_not_divide_the_image():
    message = re.escape('An image of 224 x 230 pixels cannot be cut into patches of 16 x 16')
    with pytest.raises(ValueError, match=message):
        BlockwiseMask(patch_size=16)({'img': np.zeros((224, 230, 3), np.uint8)})


@pytest.mark.parametrize('settings', [{}, {'patch_size': 16, 'grid': 14}])
def test_either_grid_or_patch_size(settings):
    with pytest.raises(ValueError, match='exactly one'):
        BlockwiseMask(**settings)

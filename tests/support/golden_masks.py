"""Statistics of block-wise masks, as the golden case ``block_mask_statistics`` keeps them."""

import numpy as np

from beitv2_mm.datasets.masking import BlockwiseMaskGenerator

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def count_components(mask: np.ndarray) -> int:
    """Number of 4-connected regions of True in an (H, W) mask."""
    todo = set(zip(*(axis.tolist() for axis in np.nonzero(mask)), strict=True))
    count = 0
    while todo:
        count += 1
        front = [todo.pop()]
        while front:
            row, col = front.pop()
            for near in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
                if near in todo:
                    todo.remove(near)
                    front.append(near)
    return count


def perimeters(masks: np.ndarray) -> np.ndarray:
    """(N, H, W) -> (N,): patch edges between masked and not masked, the image border included."""
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1))).astype(np.int8)
    vertical = np.abs(np.diff(padded, axis=1)).sum((1, 2))
    return vertical + np.abs(np.diff(padded, axis=2)).sum((1, 2))


def mask_statistics(masks: np.ndarray) -> dict[str, np.ndarray]:
    """(N, H, W) bool -> the arrays that the golden case holds, under its names."""
    around = perimeters(masks)
    parts = [count_components(mask) for mask in masks]
    return {
        'frequency': masks.mean(0),
        'components': np.bincount(parts) / len(masks),
        'perimeter_quantiles': np.quantile(around, QUANTILES),
        'perimeter_mean': around.mean(),
        'perimeter_std': around.std(),
    }


def draw_masks(settings: dict, seed: int = 0) -> np.ndarray:
    """As many masks as the golden case was made of: (draws, H, W) bool."""
    np.random.seed(seed)
    generator = BlockwiseMaskGenerator(**{k: v for k, v in settings.items() if k != 'draws'})
    return np.stack([generator() for _ in range(settings['draws'])])


def assert_same_statistics(masks: np.ndarray, expected: dict[str, np.ndarray], draws: int) -> None:
    """Our masks and ``draws`` reference masks are samples of one distribution (5 sigma each)."""
    ours = mask_statistics(masks)
    share = 1 / len(masks) + 1 / draws  # variance of a difference of two means, per unit variance

    def sigma(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        pooled = (a * len(masks) + b * draws) / (len(masks) + draws)
        return np.sqrt(pooled * (1 - pooled) * share)

    z = ours['frequency'] - expected['frequency']
    z = z / np.maximum(sigma(ours['frequency'], expected['frequency']), share)
    assert ours['frequency'].shape == expected['frequency'].shape
    assert np.abs(z).max() < 5, f'frequency of a position: {np.abs(z).max():.1f} sigma'
    # neighbours are correlated: a small grid is worth few independent positions
    assert z.std() < 2.5, f'frequencies: {z.std():.2f} sigma on average'

    length = max(len(ours['components']), len(expected['components']))
    a, b = (np.pad(s['components'], (0, length - len(s['components']))) for s in (ours, expected))
    z = (a - b) / np.maximum(sigma(a, b), share)
    assert np.abs(z).max() < 5, f'number of components: {np.abs(z).max():.1f} sigma'

    around = perimeters(masks)
    z = (around.mean() - expected['perimeter_mean']) / (around.std() * np.sqrt(share) + 1e-9)
    assert abs(z) < 5, f'mean perimeter: {z:.1f} sigma'
    # a perimeter is a whole number, so a quantile is checked by the shares below and up to it
    for q, value in zip(QUANTILES, expected['perimeter_quantiles'], strict=True):
        slack = 5 * np.sqrt(q * (1 - q) * share)
        assert (around < value).mean() - slack < q < (around <= value).mean() + slack, (
            f'quantile {q} of the perimeter: expected {value}, got {np.quantile(around, q)}'
        )

"""Block-wise masks: () -> (H, W) bool, True where a patch is masked (BEiT, algorithm 1)."""

import math

import numpy as np


def to_grid(size: int | tuple[int, int], name: str) -> tuple[int, int]:
    """An int or (height, width) of positive ints -> (height, width)."""
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise ValueError(f'{name} is {size!r}; expected a positive int or (height, width) of them.')
    return pair[0], pair[1]


class BlockwiseMaskGenerator:
    """Draws masks of exactly ``num_masked`` patches, made of overlapping rectangles.

    Args:
        grid: patches per image, an int or (height, width).
        num_masked: the number of masked patches in every mask.
        min_block, max_block: smallest and largest area of a rectangle, in patches. The number of
            patches that are still missing also limits the area, even below ``min_block``.
        min_aspect, max_aspect: bounds of height / width, drawn log-uniformly; the upper one is
            1 / min_aspect by default.

    The randomness is NumPy's global state, which the training loops of this package seed for each
    sample (`beitv2_mm.engine.loops.ResumableLoader`).

    >>> mask = BlockwiseMaskGenerator(grid=14, num_masked=75)()
    >>> mask.shape, int(mask.sum())
    ((14, 14), 75)
    """

    ATTEMPTS = 10  # rectangles tried in a row before the rest is filled patch by patch

    def __init__(
        self,
        grid: int | tuple[int, int],
        num_masked: int = 75,
        min_block: int = 16,
        max_block: int | None = None,
        min_aspect: float = 0.3,
        max_aspect: float | None = None,
    ) -> None:
        self.grid = to_grid(grid, 'grid')
        height, width = self.grid
        if not 0 < num_masked <= height * width:
            raise ValueError(
                f'num_masked is {num_masked}; a grid of {height} x {width} patches allows 1 to '
                f'{height * width}. Lower num_masked or enlarge the image.'
            )
        if not 0 < min_block <= (max_block or min_block):
            raise ValueError(
                f'min_block is {min_block} and max_block {max_block}; expected '
                f'1 <= min_block <= max_block (or max_block=None).'
            )
        if min_aspect <= 0 or (max_aspect or 1 / min_aspect) < min_aspect:
            raise ValueError(
                f'min_aspect is {min_aspect} and max_aspect {max_aspect}; expected '
                f'0 < min_aspect <= max_aspect (without max_aspect, min_aspect at most 1).'
            )
        self.num_masked = num_masked
        self.min_block = min_block
        self.max_block = max_block or height * width
        self._log_aspect = math.log(min_aspect), math.log(max_aspect or 1 / min_aspect)

    def __call__(self) -> np.ndarray:
        """One mask, (H, W) bool."""
        mask: np.ndarray = np.zeros(self.grid, bool)
        missing = self.num_masked
        while missing and (added := self._add_block(mask, missing)):
            missing -= added
        if missing:
            rest = np.flatnonzero(~mask)
            mask.flat[np.random.permutation(rest)[:missing]] = True
        return mask

    def _add_block(self, mask: np.ndarray, missing: int) -> int:
        """Masks a rectangle; returns the number of new patches, at most ``missing``, 0 if none."""
        height, width = self.grid
        largest = min(missing, self.max_block)
        low, high = self._log_aspect
        for _ in range(self.ATTEMPTS):
            u_area, u_aspect, u_top, u_left = np.random.random(4).tolist()
            # If fewer than min_block patches are missing, the bounds simply change places.
            area = self.min_block + (largest - self.min_block) * u_area
            aspect = math.exp(low + (high - low) * u_aspect)
            h = round(math.sqrt(area * aspect))
            w = round(math.sqrt(area / aspect))
            if h < height and w < width:
                # Both ends are included, so that the last row and column can be reached.
                top = int(u_top * (height - h + 1))
                left = int(u_left * (width - w + 1))
                block = mask[top : top + h, left : left + w]
                added = block.size - np.count_nonzero(block)
                if 0 < added <= largest:
                    block[:] = True
                    return added
        return 0

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(grid={self.grid}, num_masked={self.num_masked}, '
            f'min_block={self.min_block}, max_block={self.max_block})'
        )

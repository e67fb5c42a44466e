"""Samples of more than 8 bits -> 8 bits, or floats from 0 to 255, by what is white.

A 16-bit file does not say how many of its bits are used: cameras and scanners fill 10, 12 or 14.
So a data set has a white level, `white_level` of the largest value in a sample of its images or a
number that the user gives; without one, all 16 bits count. The rules are in docs/data_faults.md.
"""

from functools import cache

import numpy as np

FULL = 65535  # white of 16 bits


def white_level(largest: float) -> int:
    """The white of the fewest bits, from 8 to 16, that hold ``largest``: 255, 511, ... 65535."""
    return 2 ** min(16, max(8, int(largest).bit_length())) - 1


def scale(values: np.ndarray, white: float | None = None, float32: bool = False) -> np.ndarray:
    """Values as a file stores them -> uint8, or float32 from 0 to 255; bytes stay as they are.

    Args:
        values: of any shape; what is not 8 bits wide needs ``white`` if it is not 16 bits wide.
        white: the value that becomes 255; None for 65535.
        float32: do not round.

    Raises:
        ValueError: values below 0 or above ``white``, NaN, or floats without ``white``.
    """
    if values.dtype == bool:
        values = values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint8:
        return values.astype(np.float32) if float32 else values
    if values.dtype.kind not in 'uif':
        raise ValueError(f'it holds {values.dtype}, expected integers or floats')
    if white is None and values.dtype != np.uint16:
        raise ValueError(
            f'what is white is not stated for {values.dtype}: save it as 8 or 16 bits, or give '
            'white=... to the data set, e.g. white=1.0'
        )
    smallest, largest = values.min(initial=0), values.max(initial=0)
    limit = FULL if white is None else white
    if not (smallest >= 0 and largest <= limit):  # NaN is neither
        what = f'its values go from {smallest} to {largest}, expected 0 to {limit}'
        is_count = values.dtype.kind in 'ui' and smallest >= 0 and largest <= FULL
        fix = f'give white={white_level(largest)} to the data set' if is_count else 'change them'
        raise ValueError(f'{what}: {fix}, or another white level')
    if float32:
        return values.astype(np.float32) * np.float32(255 / limit)
    if limit == FULL and values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    if values.dtype == np.uint16:
        return _table(limit)[values]
    return np.rint(values * (255 / limit)).astype(np.uint8)


@cache
def _table(white: float) -> np.ndarray:
    """The byte of each of 65536 values; above white it is 255."""
    return np.rint((np.arange(FULL + 1) * (255 / white)).clip(0, 255)).astype(np.uint8)

"""The number of channels and the white level of a data set, found in a sample of its files."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from mmengine.logging import print_log

from beitv2_mm.datasets.bands import read_bands, stored_values
from beitv2_mm.datasets.bit_depth import FULL, is_deep, white_level
from beitv2_mm.datasets.reading import (
    UnreadableImageError,
    check_content,
    read_bytes,
    read_image,
)
from beitv2_mm.datasets.tiff import is_tiff, read_layout

T = TypeVar('T')
SAMPLE = 64  # images
EIGHT_BITS = ('.jpg', '.jpeg', '.webp', '.bmp', '.gif')  # formats of at most 8 bits
WITH_BANDS = ('.tif', '.tiff', '.npy')  # formats whose channels need not be colours


def sample(files: Sequence[T], size: int = SAMPLE) -> Sequence[T]:
    """At most ``size`` of the files, evenly spread."""
    return files[:: max(1, -(-len(files) // size))]


@dataclass(frozen=True)
class Depth:
    """The values of a sample of images with more than 8 bits."""

    sampled: int  # number of images in the sample
    deep: int  # number of those with more than 8 bits
    smallest: float
    largest: float
    largest_in: str  # the path of an image with that value
    is_float: bool = False

    @property
    def white(self) -> int:
        """See `white_level`."""
        return white_level(self.largest)


def find_depth(paths: Sequence[str], channels: int = 3) -> Depth | None:
    """The values of a sample of a data set; None if it has no image of 16 bits.

    Files that state what is white (PGM and TIFF of other depths) and unreadable files do not count.
    """
    lows, highs, is_float = [], {}, False
    for path in paths:
        try:
            if channels == 3 and not is_deep(check_content(path, read_bytes(path))):
                continue
            values, stated = stored_values(path, None if channels == 3 else channels)
        except UnreadableImageError:
            continue  # the data set skips and names it later
        if values.dtype.kind not in 'uif' or values.dtype == np.uint8 or stated is not None:
            continue
        lows.append(values.min().item())
        highs[path] = values.max().item()
        is_float = is_float or values.dtype.kind == 'f'
    if not highs:
        return None
    largest_in = max(highs, key=lambda path: highs[path])
    return Depth(len(paths), len(highs), min(lows), highs[largest_in], largest_in, is_float)


def settle_white(
    paths: Sequence[str], white: float | str | None, channels: int, where: str
) -> float | None:
    """Finds or checks the white level of a data set, and logs it with the values of the sample.

    Args:
        paths: a sample of the data set.
        white: a number; 'auto' to find it, None to take the upper 8 bits.
        where: the data set, as the log names it.

    Returns:
        The level; None if ``white`` is None, or 'auto' and no image of the sample has 16 bits.

    Raises:
        ValueError: the level is too small for an image of the sample, or cannot be found.
    """
    if white is None:
        return None
    if isinstance(white, str) and white != 'auto':
        raise ValueError(f"white is {white!r}; expected a number, 'auto' or None.")
    depth = find_depth(paths, channels)
    if white != 'auto':
        level = float(white)
        if level <= 0:
            raise ValueError(f'white is {white}; expected a number above 0.')
        if depth and depth.largest > level:
            raise ValueError(
                f'white={white} is smaller than the largest value, {depth.largest}, of '
                f'{depth.largest_in}: give '
                f"white={depth.largest if depth.is_float else depth.white}, or white='auto' to "
                'find it.'
            )
        return _say(where, depth, level, 'given') if depth else level
    if depth is None:
        return None
    if depth.is_float or depth.largest > FULL or depth.smallest < 0:
        raise ValueError(
            f'{where}: the values of {depth.deep} of {depth.sampled} sampled images go from '
            f'{depth.smallest:g} to {depth.largest:g}, the largest in {depth.largest_in}, which '
            f'does not say what is white: give white={max(depth.largest, 1):g} or another level.'
        )
    return _say(where, depth, depth.white, 'the fewest bits that hold them')


def _say(where: str, depth: Depth, white: float, why: str) -> float:
    """Logs the white level and returns it."""
    upper = ', the upper 8 bits' if white == FULL else ''
    print_log(
        f'{where}: {depth.deep} of {depth.sampled} sampled images have more than 8 bits, with '
        f'values from {depth.smallest:g} to {depth.largest:g}; white is {white:g} ({why}{upper}).',
        logger='current',
    )
    return white


def count_channels(paths: Iterable[str]) -> Counter[int]:
    """Number of channels without alpha -> number of images; grey and colours count as 3.

    Unreadable images are left out.
    """
    counts: Counter[int] = Counter()
    for path in paths:
        if not path.lower().endswith(WITH_BANDS):
            counts[3] += 1
            continue
        try:
            content = read_bytes(path)
            if is_tiff(content):
                layout = read_layout(content)
                counts[layout.colours or layout.bands] += 1
            else:
                counts[stored_values(path)[0].shape[2]] += 1
        except Exception:  # whatever a damaged file raises; an error names it when it is read
            continue
    return counts


def channel_statistics(
    paths: Sequence[str], channels: int, white: float | None
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, for values from 0 to 1, over a sample."""
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for path in sample(paths):
        try:
            if channels == 3:
                pixels = read_image(path, white, float32=True)
            else:
                pixels = read_bands(path, channels, white, float32=True)
        except UnreadableImageError:
            continue
        flat = pixels.reshape(-1, channels).astype(np.float64) / 255
        total, squares = total + flat.sum(0), squares + np.square(flat).sum(0)
        count += len(flat)
    if not count:
        raise ValueError(f'Not one image of {channels} channels could be read.')
    mean = total / count
    return mean.tolist(), np.sqrt((squares / count - mean**2).clip(1e-12)).tolist()


def shown(path: str) -> str:
    """The name of a folder in logs and errors."""
    return path if '://' in path else os.path.abspath(path)

"""Images with more than 8 bits a sample: file content -> values as stored -> 8 bits, or floats.

A 16-bit file does not say how many of its bits are used: cameras and scanners fill 10, 12 or 14.
So a data set has a white level, the value that becomes 255: `white_level` of the largest value in a
sample of its images, or a number that the user gives. Without one it is 65535. The rules are in
docs/data_faults.md.
"""

import numpy as np
from PIL import Image, ImageFile

from beitv2_mm.datasets.colours import orientation_of
from beitv2_mm.datasets.tiff import decode, read_layout, read_tiff, turn

FULL = 65535  # white of 16 bits
BITS = 258  # the tag of TIFF


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an image, not loaded yet, has more than 8 bits a sample, which Pillow would cut."""
    if image.format == 'TIFF':
        if image.mode in ('I', 'F'):
            return False  # such a file is refused: it does not state what is white
        return image.mode.startswith('I') or max(_bits(image)) == 16
    if image.mode.startswith('I'):
        return True
    arguments = image.tile[0][3] if image.tile else ''
    if image.format == 'PPM':
        return isinstance(arguments, tuple) and arguments[-1] == FULL
    return ';16' in str(arguments)


def stated_white(image: ImageFile.ImageFile) -> int | None:
    """The white level that a deep image states before it is loaded; None for 16 bits.

    A PGM states its largest value, and Pillow scales all values so that this one becomes 65535.
    """
    if image.format == 'TIFF':
        bits = _bits(image)[0]
        return None if bits == 16 else 2**bits - 1
    decoder, arguments = image.tile[0][0], image.tile[0][3]
    is_pgm = image.format == 'PPM' and decoder != 'raw' and image.mode.startswith('I')
    return FULL if is_pgm and isinstance(arguments, tuple) and arguments[-1] != FULL else None


def deep_values(content: bytes, image: Image.Image) -> np.ndarray:
    """The (H, W) or (H, W, C) uint16 values of a loaded deep image, as stored, upright, in RGB."""
    if image.mode.startswith('I'):
        return turn(np.asarray(image).astype(np.uint16), orientation_of(image))
    if image.format == 'TIFF':
        shown = 4 if image.mode == 'RGBA' else 3  # any other fourth band need not be transparency
        return read_tiff(content, read_layout(content))[..., :shown]
    values = decode(content)
    if values is None or values.dtype != np.uint16:
        raise ValueError('OpenCV cannot read it')
    return turn(values, orientation_of(image))


def _bits(image: Image.Image) -> tuple[int, ...]:
    bits: tuple[int, ...] = getattr(image, 'tag_v2', {}).get(BITS, (1,))
    return bits


def white_level(largest: float) -> int:
    """The largest value of the fewest bits, 8 to 16, that hold ``largest``: 255, 511, ... 65535."""
    return 2 ** min(16, max(8, int(largest).bit_length())) - 1


def scale(values: np.ndarray, white: float | None = None, float32: bool = False) -> np.ndarray:
    """Values as a file stores them -> uint8, or float32 from 0 to 255; bytes stay as they are.

    Args:
        values: an array of any shape. Values that have neither 8 nor 16 bits need ``white``.
        white: the value that becomes 255; None for 65535.
        float32: return floats, which are not rounded.

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
    exact = np.float32 if values.dtype == np.uint16 else np.float64
    return np.rint(values * exact(255 / limit)).astype(np.uint8)

"""Images of any number of channels -> (H, W, C), channels in the order of the file.

    read_bands('field.tif', 4)   # (H, W, 4) uint8

It reads TIFF of any number of bands, .npy arrays (H, W), (H, W, C) or (C, H, W), and the formats of
`read_image`, whose channels are grey or colours, with or without alpha.
"""

import io
import os
from math import prod

import numpy as np
from numpy.lib import format as npy

from beitv2_mm.datasets.bit_depth import scale
from beitv2_mm.datasets.colours import orientation_of
from beitv2_mm.datasets.reading import (
    MAX_ASPECT,
    MAX_PIXELS,
    check_content,
    load_content,
    read_bytes,
    unreadable,
)
from beitv2_mm.datasets.tiff import Layout, is_tiff, read_layout, read_tiff, turn

NPY = b'\x93NUMPY'
MAX_VALUES = 4 * MAX_PIXELS


def read_bands(
    path: str | os.PathLike, channels: int, white: float | None = None, float32: bool = False
) -> np.ndarray:
    """Pixels (H, W, channels) uint8, or float32 from 0 to 255, of the first page, upright.

    Args:
        channels: the number of channels that the image must have.
        white, float32: see `beitv2_mm.datasets.bit_depth.scale`.

    Raises:
        UnreadableImageError: the file has no readable pixels, or another number of channels.
    """
    values, stated = stored_values(path, channels)
    try:
        return np.ascontiguousarray(scale(values, white if stated is None else stated, float32))
    except ValueError as error:
        raise unreadable(path, 'unsupported', 'its values', error) from error


def stored_values(
    path: str | os.PathLike, channels: int | None = None
) -> tuple[np.ndarray, int | None]:
    """Values (H, W, C) as stored, upright, and the white level, or None if the file states none.

    Args:
        channels: the expected number, which also tells (C, H, W) from (H, W, C); None for any.

    Raises:
        UnreadableImageError: the file has no readable pixels, or another number of channels.
    """
    values, stated = _decode(path, channels)
    height, width, found = values.shape
    if not values.size or max(height, width) > MAX_ASPECT * min(height, width):
        raise unreadable(path, 'too large', f'{width} x {height}, thinner than 1:{MAX_ASPECT}')
    if channels not in (None, found):
        raise unreadable(
            path,
            'unsupported',
            f'it has {found} channels, expected {channels}: change channels of the data set (and '
            'in_channels of the model), or remove the file',
        )
    return values, stated


def _decode(path: str | os.PathLike, channels: int | None) -> tuple[np.ndarray, int | None]:
    """Values (H, W, C), of any number of channels, and the stated white level."""
    content = read_bytes(path)
    if content.startswith(NPY):
        return _read_npy(path, content, channels), None
    if is_tiff(content):
        layout = _layout(path, content)
        grey = layout.bands == 1 and channels in (None, 1) and not layout.is_float
        if not grey:  # Pillow reads grey correctly
            return _read_tiff(path, content, layout, channels), None
    image = check_content(path, content)
    values, stated = load_content(path, content, image)
    if values is None:
        mode = {'1': 'L', 'P': 'RGB', 'PA': 'RGBA'}.get(image.mode)
        orientation = orientation_of(image)
        values = turn(np.asarray(image.convert(mode) if mode else image), orientation)
    return np.atleast_3d(values), stated


def _read_npy(path: str | os.PathLike, content: bytes, channels: int | None) -> np.ndarray:
    """The values (H, W, C) of a .npy file; never unpickles."""
    file = io.BytesIO(content)
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except Exception as error:  # whatever a damaged header raises
        raise unreadable(path, 'damaged', 'its .npy header', error) from error
    if dtype.hasobject or dtype.kind not in 'buif' or len(shape) not in (2, 3):
        raise unreadable(
            path,
            'unsupported',
            f'an array of {dtype} of shape {shape}, expected numbers of shape (H, W), (H, W, C) or '
            '(C, H, W)',
        )
    if prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise unreadable(
            path, 'damaged', f'{len(content) - file.tell()} bytes for an array of shape {shape}'
        )
    values = np.frombuffer(content, dtype, offset=file.tell())
    values = values.reshape(shape, order='F' if fortran else 'C')
    if dtype.byteorder == '>':
        values = values.astype(dtype.newbyteorder('='))
    if values.ndim == 2:
        return values[..., None]
    first = channels == shape[0] != shape[2] if channels else shape[0] < shape[2]
    return values.transpose(1, 2, 0) if first else values  # (H, W, C)


def _layout(path: str | os.PathLike, content: bytes) -> Layout:
    try:
        return read_layout(content)
    except Exception as error:
        raise unreadable(path, 'damaged', 'its TIFF header', error) from error


def _read_tiff(
    path: str | os.PathLike, content: bytes, layout: Layout, channels: int | None
) -> np.ndarray:
    if layout.height * layout.width * max(layout.bands, channels or 1) > MAX_VALUES:
        raise unreadable(
            path, 'too large', f'{layout.width} x {layout.height} pixels of {layout.bands} bands'
        )
    try:
        return read_tiff(content, layout, channels)
    except ImportError as error:
        raise unreadable(path, 'unsupported', str(error)) from error
    except Exception as error:  # decoders raise whatever they like
        raise unreadable(path, 'damaged', f'TIFF of {layout.bands} bands', error) from error

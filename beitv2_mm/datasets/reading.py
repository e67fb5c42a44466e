"""Image files -> pixels, by the rules of docs/data_faults.md.

    read_image('cat.jpg')   # (H, W, 3) uint8, RGB

`beitv2_mm.datasets.bands` reads images of other numbers of channels. No other module opens image
files that come from outside of the package.
"""

import errno
import io
import logging
import os
import stat
import time
import warnings
from typing import Literal, get_args

import numpy as np
import torch
from mmengine import fileio
from mmengine.logging import print_log
from PIL import Image, ImageFile, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_jpeg

from beitv2_mm.datasets.bit_depth import deep_values, is_deep, scale, stated_white, white_level
from beitv2_mm.datasets.colours import deep_to_rgb, orientation_of, to_rgb
from beitv2_mm.datasets.tiff import is_tiff, read_layout, turn

Reason = Literal[
    'missing', 'empty', 'read error', 'no image', 'damaged', 'too large', 'unsupported', 'other'
]
REASONS: tuple[Reason, ...] = get_args(Reason)
# The content decides, not the name. Some of Pillow's other formats run programs (EPS).
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'PPM', 'TIFF', 'GIF')
MAX_PIXELS = 89_478_485  # 256 MiB as RGB: where Pillow begins to warn
MAX_ASPECT = 200  # a thinner image, resized by its short edge, would fill the memory
MAX_BYTES = 1 << 30  # of a file
RETRY_DELAYS = (0.1, 0.4, 1.6)  # seconds
_said_upper_bits = False


class UnreadableImageError(ValueError):
    """A file without readable pixels; the message names the file and the reason."""

    def __init__(self, message: str, reason: Reason = 'other') -> None:
        super().__init__(message)
        self.reason: Reason = reason


def unreadable(
    path: str | os.PathLike, reason: Reason, detail: str, error: Exception | None = None
) -> UnreadableImageError:
    """The error for a file, with the exception that caused it, if there was one."""
    cause = '' if error is None else f': {type(error).__name__}: {error}'
    return UnreadableImageError(
        f'Cannot read {os.fspath(path)}: {reason} ({detail}{cause})', reason
    )


def read_image(
    path: str | os.PathLike, white: float | None = None, float32: bool = False
) -> np.ndarray:
    """Pixels (H, W, 3) uint8, RGB, of the first frame, turned upright as EXIF says.

    Grey is repeated, 16 bits become 8 by the white level, transparency is laid on white, CMYK is
    read as Adobe writes it, and colour profiles are ignored.

    Args:
        white: of files with 16 bits, see `beitv2_mm.datasets.bit_depth`; None: the upper 8 bits.
        float32: return floats from 0 to 255, which keep all levels of 16-bit files.

    Raises:
        UnreadableImageError: the file has no readable pixels, or does not state what is white.
    """
    content = read_bytes(path)
    image = check_content(path, content)
    if image.format == 'JPEG' and image.mode in ('RGB', 'L'):
        pixels = _decode_jpeg(path, content, image)
        return pixels.astype(np.float32) if float32 else pixels
    values, stated = load_content(path, content, image)
    try:
        if values is None:
            pixels = np.ascontiguousarray(turn(np.array(to_rgb(image)), orientation_of(image)))
            return pixels.astype(np.float32) if float32 else pixels
        if white is None and stated is None:
            _say_upper_bits(path, values)
        inverted = getattr(image, 'tag_v2', {}).get(262) == 0  # Pillow heeds this for 8 bits only
        scaled = scale(values, white if stated is None else stated, float32)
        return deep_to_rgb(255 - scaled if inverted else scaled)
    except Exception as error:  # conversions raise whatever they like
        what = f'{image.format} of mode {image.mode}'
        raise unreadable(path, 'unsupported', what, error) from error


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """Labels (H, W) int64 as stored; palette images give their indices.

    Raises:
        UnreadableImageError: see `read_image`.
        ValueError: the image has more than one channel, or values that are no integers.
    """
    labels = np.asarray(open_image(path))
    if labels.ndim != 2:
        raise ValueError(
            f'The mask {path} has {labels.shape[2]} channels; expected one label a pixel '
            '(grey or palette PNG), not colours.'
        )
    if labels.dtype.kind not in 'bui':
        raise ValueError(f'The mask {path} holds {labels.dtype}; expected integers.')
    return labels.astype(np.int64)


def open_image(path: str | os.PathLike) -> Image.Image:
    """The first frame, decoded and checked, in its own mode.

    Raises:
        UnreadableImageError: see `read_image`.
    """
    content = read_bytes(path)
    image = check_content(path, content)
    _load(path, content, image)
    return image


def read_bytes(path: str | os.PathLike) -> bytes:
    """The content of a file; after a read error, as of a network file system, it tries again.

    Raises:
        UnreadableImageError: the file is missing, not a regular file, too large or unreadable.
    """
    path = os.fspath(path)
    for delay in (*RETRY_DELAYS, None):
        try:
            if '://' not in path:
                status = os.stat(path)
                if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device never end
                    raise unreadable(path, 'no image', 'it is not a regular file')
                if status.st_size > MAX_BYTES:
                    raise unreadable(path, 'too large', f'{status.st_size} bytes')
            content: bytes = fileio.get(path)
            return content
        except (FileNotFoundError, NotADirectoryError) as error:
            what = 'a link to nothing' if os.path.islink(path) else 'there is no such file'
            raise unreadable(path, 'missing', what) from error
        except PermissionError as error:
            raise unreadable(path, 'read error', 'no permission') from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise unreadable(path, 'missing', 'it is a link in a circle') from error
            if delay is None:
                raise unreadable(path, 'read error', 'tried four times', error) from error
            print_log(
                f'{path}: {error}; trying again in {delay} s', 'current', level=logging.WARNING
            )
            time.sleep(delay)
    raise AssertionError('unreachable')


def check_content(path: str | os.PathLike, content: bytes) -> ImageFile.ImageFile:
    """The image in the content of a file, with only its header read and checked."""
    if not content:
        raise unreadable(path, 'empty', 'it has 0 bytes')
    try:
        with warnings.catch_warnings():  # Pillow warns above MAX_PIXELS: an error below
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise _of_bands(path, content) or unreadable(
            path, 'no image', f'it is none of {", ".join(FORMATS)}'
        ) from error
    except Image.DecompressionBombError as error:
        raise unreadable(path, 'too large', str(error)) from error
    except Exception as error:  # decoders raise whatever they like
        raise unreadable(path, 'damaged', 'its header', error) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise unreadable(path, 'too large', f'{width} x {height} pixels, limit {MAX_PIXELS}')
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise unreadable(path, 'too large', f'{width} x {height}, thinner than 1:{MAX_ASPECT}')
    return image


def _of_bands(path: str | os.PathLike, content: bytes) -> UnreadableImageError | None:
    """The error for a TIFF whose bands are not colours, which Pillow does not identify."""
    try:
        bands = read_layout(content).bands if is_tiff(content) else 0
    except Exception:  # whatever a damaged header raises
        return None
    fix = f'its {bands} bands are not colours: give channels={bands} to the data set'
    return unreadable(path, 'unsupported', fix) if bands not in (0, 1, 3) else None


def load_content(
    path: str | os.PathLike, content: bytes, image: ImageFile.ImageFile
) -> tuple[np.ndarray | None, int | None]:
    """Decodes and checks the image; returns its values of more than 8 bits and the stated white.

    Both are None for images of 8 bits, whose pixels are in ``image``.
    """
    deep = is_deep(image)
    stated = stated_white(image) if deep else None
    _load(path, content, image)
    try:
        return (deep_values(content, image) if deep else None), stated
    except Exception as error:  # decoders raise whatever they like
        raise unreadable(path, 'unsupported', f'{image.format} of 16 bits', error) from error


def _load(path: str | os.PathLike, content: bytes, image: ImageFile.ImageFile) -> None:
    if image.format in ('JPEG', 'MPO'):
        _check_end(path, content, image)
    try:
        if image.format == 'PNG':  # loading stops at the last row, whatever the checksums say
            Image.open(io.BytesIO(content), formats=FORMATS).verify()
        image.load()
    except Exception as error:
        raise unreadable(path, 'damaged', f'{image.format}', error) from error


def _decode_jpeg(path: str | os.PathLike, content: bytes, image: ImageFile.ImageFile) -> np.ndarray:
    """The pixels that Pillow would give, in less time."""
    _check_end(path, content, image)
    coded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    try:
        pixels = decode_jpeg(coded, ImageReadMode.RGB, apply_exif_orientation=True)
    except RuntimeError as error:
        raise unreadable(path, 'damaged', 'JPEG', error) from error
    array: np.ndarray = pixels.permute(1, 2, 0).numpy()  # (3, H, W) -> (H, W, 3)
    return array


def _check_end(path: str | os.PathLike, content: bytes, image: ImageFile.ImageFile) -> None:
    assert image.fp is not None
    if content.find(b'\xff\xd9', image.fp.tell()) < 0:  # the decoder would paint the rest grey
        raise unreadable(path, 'damaged', f'{image.format}: it has no end marker')


def _say_upper_bits(path: str | os.PathLike, values: np.ndarray) -> None:
    """Warns once in a process that a file outside of a data set is read without a white level."""
    global _said_upper_bits
    if not _said_upper_bits:
        _said_upper_bits = True
        largest = int(values.max(initial=0))
        print_log(
            f'{os.fspath(path)} has 16 bits and no white level is given: the upper 8 are taken. '
            f'Its largest value is {largest}; if the images use no more than that, give '
            f'white={white_level(largest)}.',
            'current',
            level=logging.WARNING,
        )

"""Image files -> pixels, by the rules of docs/data_faults.md.

    read_image('cat.jpg')   # (H, W, 3) uint8, RGB

The one place that opens image files from outside.
"""

import io
import logging
import os
import stat
import time
from typing import Literal, get_args

import numpy as np
import torch
from mmengine import fileio
from mmengine.logging import print_log
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

Reason = Literal[
    'missing', 'empty', 'read error', 'no image', 'damaged', 'too large', 'unsupported', 'other'
]
REASONS: tuple[Reason, ...] = get_args(Reason)
# By content, whatever the file is called; Pillow has others that run programs (EPS).
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'PPM', 'TIFF', 'GIF')
MAX_PIXELS = 89_478_485  # 256 MiB as RGB: where Pillow begins to warn
MAX_ASPECT = 200  # a thinner one, resized by its short edge, would fill the memory
MAX_BYTES = 1 << 30  # of a file
RETRY_DELAYS = (0.1, 0.4, 1.6)  # seconds


class UnreadableImageError(ValueError):
    """A file that gives no pixels, and why; the message names it."""

    def __init__(self, message: str, reason: Reason = 'other') -> None:
        super().__init__(message)
        self.reason: Reason = reason


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Pixels (H, W, 3) uint8, RGB, upright as EXIF says; the first frame.

    Grey is repeated, 16 bits are cut to the upper 8, transparency lies on white, CMYK is taken as
    Adobe writes it, colour profiles are ignored.

    Raises:
        UnreadableImageError: there are no pixels, or no telling what they mean.
    """
    return _pixels(path, open_image(path))


def _pixels(path: str | os.PathLike, image: Image.Image) -> np.ndarray:
    try:
        return np.array(_to_rgb(_upright(image)))
    except Exception as error:  # conversions raise whatever they like
        raise _unreadable(path, 'unsupported', f'{image.format} of mode {image.mode}', error) from (
            error
        )


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """Labels (H, W) int64 as stored; palette images give their indices.

    Raises:
        UnreadableImageError: see `read_image`.
        ValueError: more than one channel, or values that are no integers.
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
    return _load(path, *_check(path))


def read_tensor(path: str | os.PathLike) -> Tensor:
    """What `read_image` gives as a (3, H, W) tensor, uint8, RGB; most JPEG files are decoded by
    torchvision, to the same pixels in less time.

    Raises:
        UnreadableImageError: see `read_image`.
    """
    content, image = _check(path)
    if image.format == 'JPEG' and image.mode in ('RGB', 'L'):
        _check_end(path, content, image)
        coded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        try:
            return decode_jpeg(coded, ImageReadMode.RGB, apply_exif_orientation=True)
        except RuntimeError as error:
            raise _unreadable(path, 'damaged', 'JPEG', error) from error
    return torch.from_numpy(_pixels(path, _load(path, content, image))).permute(2, 0, 1)


def _check(path: str | os.PathLike) -> tuple[bytes, ImageFile.ImageFile]:
    """The file's content and the image, whose header alone has been read."""
    content = read_bytes(path)
    if not content:
        raise _unreadable(path, 'empty', 'it has no byte')
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise _unreadable(path, 'no image', f'it is none of {", ".join(FORMATS)}') from error
    except Image.DecompressionBombError as error:
        raise _unreadable(path, 'too large', str(error)) from error
    except Exception as error:  # decoders raise whatever they like
        raise _unreadable(path, 'damaged', 'its header', error) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _unreadable(path, 'too large', f'{width} x {height} pixels, limit {MAX_PIXELS}')
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise _unreadable(path, 'too large', f'{width} x {height}, thinner than 1:{MAX_ASPECT}')
    return content, image


def _check_end(path: str | os.PathLike, content: bytes, image: ImageFile.ImageFile) -> None:
    assert image.fp is not None
    if content.find(b'\xff\xd9', image.fp.tell()) < 0:  # the decoder would paint the rest grey
        raise _unreadable(path, 'damaged', f'{image.format}: it has no end')


def _load(path: str | os.PathLike, content: bytes, image: ImageFile.ImageFile) -> Image.Image:
    if image.format in ('JPEG', 'MPO'):
        _check_end(path, content, image)
    try:
        if image.format == 'PNG':  # loading stops at the last row, whatever the checksums say
            Image.open(io.BytesIO(content), formats=FORMATS).verify()
        image.load()
    except Exception as error:
        raise _unreadable(path, 'damaged', f'{image.format}', error) from error
    return image


def read_bytes(path: str | os.PathLike) -> bytes:
    """The file's content; read errors, as network file systems have them, are tried again.

    Raises:
        UnreadableImageError: no such file, no regular file, too large, or the error stays.
    """
    path = os.fspath(path)
    for delay in (*RETRY_DELAYS, None):
        try:
            if '://' not in path:
                status = os.stat(path)
                if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device never end
                    raise _unreadable(path, 'no image', 'it is no regular file')
                if status.st_size > MAX_BYTES:
                    raise _unreadable(path, 'too large', f'{status.st_size} bytes')
            content: bytes = fileio.get(path)
            return content
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _unreadable(path, 'missing', 'there is no such file') from error
        except PermissionError as error:
            raise _unreadable(path, 'read error', 'no permission') from error
        except OSError as error:
            if delay is None:
                raise _unreadable(path, 'read error', 'tried four times', error) from error
            print_log(
                f'{path}: {error}; trying again in {delay} s', 'current', level=logging.WARNING
            )
            time.sleep(delay)
    raise AssertionError('unreachable')


def _unreadable(
    path: str | os.PathLike, reason: Reason, detail: str, error: Exception | None = None
) -> UnreadableImageError:
    cause = '' if error is None else f': {type(error).__name__}: {error}'
    return UnreadableImageError(
        f'Cannot read {os.fspath(path)}: {reason} ({detail}{cause})', reason
    )


def _upright(image: Image.Image) -> Image.Image:
    """Rotated as EXIF says; as stored where EXIF is damaged."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # the pixels are loaded already: only the tag is lost
        return image
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == 'F' or (image.mode == 'I' and image.format == 'TIFF'):
        raise ValueError('what is white is not stated: save it as 8 or 16 bits')
    if image.mode.startswith('I'):
        image = Image.fromarray(_upper_byte(image))
    if image.mode == 'RGB' and 'transparency' not in image.info:
        return image
    if image.has_transparency_data:
        image = image.convert('RGBA')
        canvas = Image.new('RGBA', image.size, 'white')
        image = Image.alpha_composite(canvas, image)
    return image.convert('RGB')


def _upper_byte(image: Image.Image) -> np.ndarray:
    """(H, W) uint8 of 16-bit grey (Pillow's own conversion clips in some versions)."""
    values = np.asarray(image).astype(np.int64)
    tags = getattr(image, 'tag_v2', {})  # of TIFF
    bits = tags.get(258, (16,))[0]
    values = values >> (bits - 8)
    if tags.get(262) == 0:  # white is zero, which Pillow minds for 8 bits only
        values = 255 - values
    return values.clip(0, 255).astype(np.uint8)

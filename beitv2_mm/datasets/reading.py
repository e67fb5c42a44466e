"""Image files -> pixels, by the rules of docs/data_faults.md.

    read_image('cat.jpg')   # (H, W, 3) uint8, RGB

The one place that opens image files from outside, but for those of other numbers of channels, which
are read by `beitv2_mm.datasets.bands`.
"""

import errno
import io
import logging
import os
import stat
import time
import warnings
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from mmengine import fileio
from mmengine.logging import print_log
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from beitv2_mm.datasets.samples import FULL, scale, white_level
from beitv2_mm.datasets.tiff import is_tiff, read_layout, read_tiff, to_rgb

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
ORIENTATION = 274  # the tag of EXIF and TIFF
_said_upper_bits = False


class UnreadableImageError(ValueError):
    """A file that gives no pixels, and why; the message names it."""

    def __init__(self, message: str, reason: Reason = 'other') -> None:
        super().__init__(message)
        self.reason: Reason = reason


def read_image(
    path: str | os.PathLike, white: float | None = None, float32: bool = False
) -> np.ndarray:
    """Pixels (H, W, 3) uint8, RGB, upright as EXIF says; the first frame.

    Grey is repeated, 16 bits become 8 by what is white, transparency lies on white, CMYK is taken
    as Adobe writes it, colour profiles are ignored.

    Args:
        white: of files with 16 bits, see `beitv2_mm.datasets.samples`; None takes the upper 8.
        float32: floats from 0 to 255, which keep what 16-bit files have between two bytes.

    Raises:
        UnreadableImageError: there are no pixels, or no telling what they mean.
    """
    return _pixels(path, *_check(path), white, float32)


def _pixels(
    path: str | os.PathLike,
    content: bytes,
    image: ImageFile.ImageFile,
    white: float | None,
    float32: bool,
) -> np.ndarray:
    deep = is_deep(image)
    stated = stated_white(image) if deep else None
    loaded = load_content(path, content, image)
    what = f'{image.format} of mode {image.mode}'
    try:
        if not deep:
            pixels = np.array(_to_rgb(_upright(loaded)))
            return pixels.astype(np.float32) if float32 else pixels
        values, orientation = deep_values(content, loaded)
        what = f'{image.format} of 16 bits'
        if white is None and stated is None:
            _say_upper_bits(path, values)
        scaled = scale(values, white if stated is None else stated, float32)
        if getattr(image, 'tag_v2', {}).get(262) == 0:  # Pillow minds for 8 bits only
            scaled = 255 - scaled
        return _deep_pixels(turn(scaled, orientation))
    except Exception as error:  # conversions raise whatever they like
        raise unreadable(path, 'unsupported', what, error) from error


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether samples have more than 8 bits that Pillow would cut off or not interpret; asked for
    before the image is loaded."""
    if image.format == 'TIFF' and image.mode in ('I', 'F'):
        return False  # refused: what is white is not stated
    if image.mode.startswith('I'):
        return True
    if image.format == 'TIFF':
        bits: tuple[int, ...] = getattr(image, 'tag_v2', {}).get(258, (1,))
        return max(bits) == 16
    arguments = image.tile[0][3] if image.tile else ''
    if image.format == 'PPM':
        return isinstance(arguments, tuple) and arguments[-1] == FULL
    return ';16' in str(arguments)


def stated_white(image: ImageFile.ImageFile) -> int | None:
    """What a file with more than 8 bits says is white; None for 16 bits, which say nothing.

    A PGM states its largest value, to which Pillow enlarges all of them: it becomes 65535.
    """
    if image.format == 'TIFF':
        bits: int = getattr(image, 'tag_v2', {}).get(258, (16,))[0]
        return None if bits == 16 else 2**bits - 1
    decoder, arguments = image.tile[0][0], image.tile[0][3]
    is_pgm = image.format == 'PPM' and decoder != 'raw' and image.mode.startswith('I')
    return FULL if is_pgm and isinstance(arguments, tuple) and arguments[-1] != FULL else None


def deep_values(content: bytes, image: Image.Image) -> tuple[np.ndarray, int]:
    """(H, W) or (H, W, C) uint16 as stored, in RGB, of a loaded image, and the orientation that
    they still have, as EXIF counts."""
    if image.mode.startswith('I'):
        grey: np.ndarray = np.asarray(_upright(image))
        return grey.astype(np.uint16), 1
    if image.format == 'TIFF':
        layout = read_layout(content)
        shown = 4 if image.mode == 'RGBA' else 3  # a fourth band may be anything
        return read_tiff(content, layout)[..., :shown], layout.orientation
    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise ValueError('OpenCV cannot read it')
    return (to_rgb(values) if values.ndim == 3 else values), orientation_of(image)


def orientation_of(image: Image.Image) -> int:
    """What EXIF says of a loaded image; 1, upright, where EXIF is damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # the pixels are loaded already: only the tag is lost
        return 1


def turn(values: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W) or (H, W, C) upright, by one of EXIF's eight orientations."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _deep_pixels(values: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, 1), (H, W, 3) or, with alpha, (H, W, 4) -> (H, W, 3)."""
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.dtype == np.uint8:
        return np.array(_to_rgb(Image.fromarray(np.ascontiguousarray(values))))
    if values.ndim == 2:
        return np.repeat(values[..., None], 3, axis=2)
    if values.shape[2] == 4:
        share = values[..., 3:] / 255
        return values[..., :3] * share + 255 * (1 - share)
    return np.ascontiguousarray(values)


def _say_upper_bits(path: str | os.PathLike, values: np.ndarray) -> None:
    """Once in a process; a data set finds its white level before, and says so itself."""
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
    return load_content(path, *_check(path))


def read_tensor(path: str | os.PathLike, white: float | None = None) -> Tensor:
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
            raise unreadable(path, 'damaged', 'JPEG', error) from error
    return torch.from_numpy(_pixels(path, content, image, white, False)).permute(2, 0, 1)


def _check(path: str | os.PathLike) -> tuple[bytes, ImageFile.ImageFile]:
    """The file's content and the image, whose header alone has been read."""
    content = read_bytes(path)
    return content, check_content(path, content)


def check_content(path: str | os.PathLike, content: bytes) -> ImageFile.ImageFile:
    """The image of a file's content, whose header alone has been read."""
    if not content:
        raise unreadable(path, 'empty', 'it has no byte')
    try:
        with warnings.catch_warnings():  # what Pillow warns of is too large below, and skipped
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


def _check_end(path: str | os.PathLike, content: bytes, image: ImageFile.ImageFile) -> None:
    assert image.fp is not None
    if content.find(b'\xff\xd9', image.fp.tell()) < 0:  # the decoder would paint the rest grey
        raise unreadable(path, 'damaged', f'{image.format}: it has no end')


def _of_bands(path: str | os.PathLike, content: bytes) -> UnreadableImageError | None:
    """The error for a TIFF whose bands are no colours, which Pillow does not know."""
    try:
        bands = read_layout(content).bands if is_tiff(content) else 0
    except Exception:  # whatever a damaged header raises
        return None
    fix = f'its {bands} bands are no colours: give channels={bands} to the data set'
    return unreadable(path, 'unsupported', fix) if bands not in (0, 1, 3) else None


def load_content(
    path: str | os.PathLike, content: bytes, image: ImageFile.ImageFile
) -> Image.Image:
    """The decoded and checked image."""
    if image.format in ('JPEG', 'MPO'):
        _check_end(path, content, image)
    try:
        if image.format == 'PNG':  # loading stops at the last row, whatever the checksums say
            Image.open(io.BytesIO(content), formats=FORMATS).verify()
        image.load()
    except Exception as error:
        raise unreadable(path, 'damaged', f'{image.format}', error) from error
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
                    raise unreadable(path, 'no image', 'it is no regular file')
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


def unreadable(
    path: str | os.PathLike, reason: Reason, detail: str, error: Exception | None = None
) -> UnreadableImageError:
    """The error that names a file, and why."""
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
    if image.mode == 'RGB' and 'transparency' not in image.info:
        return image
    if image.has_transparency_data:
        image = image.convert('RGBA')
        canvas = Image.new('RGBA', image.size, 'white')
        image = Image.alpha_composite(canvas, image)
    return image.convert('RGB')

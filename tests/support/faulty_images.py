"""Malformed and unusual image files, made from real ones: what docs/data_faults.md is about."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from support.tiny import CIFAR

# What a file must become: pixels within a tolerance, or why not (of reading.REASONS).
Outcome = tuple[np.ndarray, int] | str
Maker = Callable[[np.ndarray, Path, np.random.Generator], Outcome]
JPEG_ERROR = 40  # of a single pixel at quality 95, colours subsampled


class Kind(NamedTuple):
    name: str
    rule: str
    suffix: str
    make: Maker


def originals() -> list[np.ndarray]:
    """The 20 real test images, enlarged so that they compress like photographs."""
    files = sorted(CIFAR.glob('*/*.png'))
    return [np.asarray(Image.open(f).resize((96, 64), Image.Resampling.BICUBIC)) for f in files]


def encoded(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **({'quality': 95} if kind == 'JPEG' else {}), **options)
    return buffer.getvalue()


def grey(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert('L'))


def repeated(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, axis=2)


def on_white(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.round(image * share + 255 * (1 - share)).astype(np.uint8)


def ramp(image: np.ndarray) -> np.ndarray:
    """Alpha (H, W) from 0 to 255."""
    height, width = image.shape[:2]
    return np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8), (height, width))


def to_cmyk(image: np.ndarray) -> Image.Image:
    """With as much black as possible, so that an inversion would show."""
    black = 255 - image.max(2).astype(int)
    scale = np.maximum(255 - black, 1)[..., None]
    color = 255 - image.astype(int) * 255 // scale
    return Image.fromarray(np.dstack([color, black]).clip(0, 255).astype(np.uint8), 'CMYK')


def empty(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    path.touch()
    return 'empty'


def page(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    path.write_text('<html><body>404 Not Found</body></html>')
    return 'no image'


def other_format(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    path.write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n')
    return 'no image'


def vanished(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    path.write_bytes(encoded(image, 'PNG'))  # removed after the folder was listed
    return 'missing'


def truncated(kind: str) -> Maker:
    def make(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
        content = encoded(image, kind)
        path.write_bytes(content[: int(len(content) * random.uniform(0.3, 0.98))])
        return 'damaged'

    return make


def tail_of_zeros(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    content = encoded(image, 'JPEG')
    keep = int(len(content) * random.uniform(0.5, 0.95))
    path.write_bytes(content[:keep] + bytes(len(content) - keep))
    return 'damaged'


def flipped_png(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    content = bytearray(encoded(image, 'PNG'))
    content[int(random.integers(60, len(content) - 20))] ^= int(random.integers(1, 256))
    path.write_bytes(content)
    return 'damaged'


def damaged_header(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    content = bytearray(encoded(image, 'JPEG'))
    start = content.find(b'\xff\xdb')  # the quantization tables: a length beyond the file's end
    content[start + 2 : start + 4] = b'\xff\xff'
    path.write_bytes(content)
    return 'damaged'


def wrong_suffix(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    path.write_bytes(encoded(image, 'PNG'))
    return image, 0


def cmyk(kind: str) -> Maker:
    def make(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
        path.write_bytes(encoded(to_cmyk(image), kind))
        return image, JPEG_ERROR if kind == 'JPEG' else 3

    return make


def sixteen_bits(channels: int) -> Maker:
    def make(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
        pixels = grey(image) if channels == 1 else image[..., ::-1]
        noise = random.integers(0, 256, pixels.shape)
        assert cv2.imwrite(str(path), (pixels.astype(np.uint16) << 8) + noise.astype(np.uint16))
        return (repeated(pixels) if channels == 1 else image), 0

    return make


def white_is_zero(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    values = (65535 - grey(image).astype(np.uint16) * 257).astype(np.uint16)
    Image.fromarray(values).save(path, tiffinfo={262: 0})
    return repeated(grey(image)), 0


def floats(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    Image.fromarray(grey(image).astype(np.float32) / 255).save(path)
    return 'unsupported'


def one_channel(mode: str) -> Maker:
    def make(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
        picture = Image.fromarray(image).convert(mode)
        picture.save(path)
        return repeated(np.asarray(picture.convert('L'))), 0

    return make


def palette(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    picture = Image.fromarray(image).quantize(64)
    picture.save(path)
    return np.asarray(picture.convert('RGB')), 0


def palette_alpha(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    picture = Image.fromarray(image).quantize(64)
    alpha = random.integers(0, 256, 64).astype(np.uint8)
    picture.save(path, transparency=alpha.tobytes())
    return on_white(np.asarray(picture.convert('RGB')), alpha[np.asarray(picture)]), 1


def with_alpha(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    Image.fromarray(np.dstack([image, ramp(image)])).save(path)
    return on_white(image, ramp(image)), 1


def grey_alpha(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    Image.fromarray(np.dstack([grey(image), ramp(image)]), 'LA').save(path)
    return on_white(repeated(grey(image)), ramp(image)), 1


def animated(kind: str) -> Maker:
    def make(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
        frames = [Image.fromarray(np.roll(image, 5 * i, 1)) for i in (1, 2)]
        options = {'lossless': True} if kind == 'WEBP' else {}
        path.write_bytes(encoded(image, kind, save_all=True, append_images=frames, **options))
        return image, 0

    return make


def rotated(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    turns, mirrored = int(random.integers(4)), bool(random.integers(2))
    stored = np.rot90(image[:, ::-1] if mirrored else image, turns)
    tag = {(0, 0): 1, (1, 0): 6, (2, 0): 3, (3, 0): 8, (0, 1): 2, (1, 1): 5, (2, 1): 4, (3, 1): 7}
    exif = Image.Exif()
    exif[0x0112] = tag[turns, int(mirrored)]
    path.write_bytes(encoded(np.ascontiguousarray(stored), 'JPEG', exif=exif, subsampling=0))
    return image, JPEG_ERROR


def damaged_exif(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    exif = b'Exif\0\0MM\0*' + random.bytes(40)
    path.write_bytes(encoded(image, 'JPEG', exif=exif))
    return image, JPEG_ERROR


def _png(width: int, height: int) -> bytes:
    """A file of some 100 bytes that announces as many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
        )

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', body) + chunk(b'IEND', b'')
    )


def giant(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    side = int(random.integers(9_500, 60_000))
    path.write_bytes(_png(side, side))
    return 'too large'


def thin(image: np.ndarray, path: Path, random: np.random.Generator) -> Outcome:
    path.write_bytes(encoded(np.zeros((1, int(random.integers(201, 9000)), 3), np.uint8), 'PNG'))
    return 'too large'


KINDS = (
    Kind('zero bytes', 'skipped', '.jpg', empty),
    Kind('a web page called .jpg', 'skipped', '.jpg', page),
    Kind('PostScript called .png', 'skipped, never handed to a program', '.png', other_format),
    Kind('vanished after listing', 'skipped', '.png', vanished),
    Kind('truncated JPEG', 'skipped', '.jpg', truncated('JPEG')),
    Kind('truncated PNG', 'skipped', '.png', truncated('PNG')),
    Kind('JPEG ending in zeros', 'skipped: it has no end marker', '.jpg', tail_of_zeros),
    Kind('PNG with a byte changed', 'skipped: checksums are compared', '.png', flipped_png),
    Kind('JPEG with a damaged header', 'skipped', '.jpg', damaged_header),
    Kind('decompression bomb', 'skipped before it is decoded', '.png', giant),
    Kind('thinner than 1:200', 'skipped', '.png', thin),
    Kind('32-bit float TIFF', 'skipped: what is white is not stated', '.tif', floats),
    Kind('PNG called .jpg', 'read: contents decide', '.jpg', wrong_suffix),
    Kind('CMYK JPEG', "read as Adobe's inverted inks", '.jpg', cmyk('JPEG')),
    Kind('CMYK TIFF', 'read, naive conversion', '.tif', cmyk('TIFF')),
    Kind('16-bit grey PNG', 'upper 8 bits, repeated', '.png', sixteen_bits(1)),
    Kind('16-bit colour PNG', 'upper 8 bits', '.png', sixteen_bits(3)),
    Kind('16-bit PGM', 'upper 8 bits, repeated', '.pgm', sixteen_bits(1)),
    Kind('16-bit TIFF, white is zero', 'upper 8 bits, inverted', '.tif', white_is_zero),
    Kind('grey PNG', 'repeated', '.png', one_channel('L')),
    Kind('black and white PNG', '0 and 255, repeated', '.png', one_channel('1')),
    Kind('palette PNG', 'colours of the palette', '.png', palette),
    Kind('palette with alpha', 'laid on white', '.png', palette_alpha),
    Kind('colours with alpha', 'laid on white', '.png', with_alpha),
    Kind('grey with alpha', 'laid on white', '.png', grey_alpha),
    Kind('animated PNG', 'first frame', '.png', animated('PNG')),
    Kind('animated WebP', 'first frame', '.webp', animated('WEBP')),
    Kind('TIFF of several pages', 'first page', '.tif', animated('TIFF')),
    Kind('rotated by EXIF', 'turned upright', '.jpg', rotated),
    Kind('damaged EXIF', 'read as stored', '.jpg', damaged_exif),
)

"""TIFF files of any number of bands: content -> (H, W, C) as stored, in the order of the file.

Pillow reads at most four bands, and reduces 16 bits of a colour to 8. OpenCV reads interleaved
colours exactly, up to four bands; in other layouts it silently drops or mixes bands. So all other
layouts need tifffile, an optional dependency (extra `images`).
"""

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
RGB, INKS = 2, 5  # photometric kinds; inks are cyan, magenta, yellow and black
ALPHA = (1, 2)  # kinds of an extra sample that are transparency
BIG = 43  # the version of BigTIFF, whose header is longer


class Layout(NamedTuple):
    """The header of the first page."""

    height: int
    width: int
    bands: int
    bits: int
    is_float: bool
    photometric: int  # the kind of the bands: RGB, INKS and others
    is_interleaved: bool
    alpha: bool
    orientation: int

    @property
    def colours(self) -> int | None:
        """3 where the bands are grey, colours or inks, which are shown as colours; else None."""
        without_alpha = self.bands - self.alpha
        return 3 if without_alpha in (1, 3) or self.photometric == INKS else None


def is_tiff(content: bytes) -> bool:
    """Whether a file begins as TIFF files do."""
    return content[:4] in MAGIC


def read_layout(content: bytes) -> Layout:
    """The layout of the first page; a damaged header raises whatever Pillow raises."""
    file = io.BytesIO(content)
    header = file.read(8)
    if BIG in header[2:4]:
        header += file.read(8)
    tags = ImageFileDirectory_v2(header)
    file.seek(tags.next)
    tags.load(file)
    bands = int(tags.get(277, 1))
    return Layout(
        height=int(tags[257]),
        width=int(tags[256]),
        bands=bands,
        bits=max(tags.get(258, (1,))),
        is_float=tags.get(339, (1,))[0] == 3,
        photometric=int(tags.get(262, 1)),
        is_interleaved=tags.get(284, 1) == 1,
        alpha=any(kind in ALPHA for kind in tags.get(338, ())),
        orientation=int(tags.get(274, 1)),
    )


def read_tiff(content: bytes, layout: Layout, channels: int | None = None) -> np.ndarray:
    """The first page, (H, W, C), upright; or ``channels`` pages of one band, as (H, W, channels).

    Raises:
        ImportError: the layout needs tifffile, which is not installed.
        ValueError: the file cannot be read.
    """
    simple = layout.photometric == RGB and layout.is_interleaved and layout.bands in (3, 4)
    simple = simple and layout.orientation == 1  # OpenCV would turn some
    if simple and layout.bits in (8, 16) and not (layout.alpha and layout.bits == 8):
        values = decode(content)
        if values is not None and values.ndim == 3 and values.shape[2] == layout.bands:
            return values
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(
            f'{layout.bands} bands of {layout.bits} bits in this layout need tifffile: '
            "pip install 'tifffile' (extra `images` of this package)"
        ) from error
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        values = page.asarray()  # (H, W), (H, W, C) or (C, H, W)
        if layout.bands == 1 and channels not in (None, 1) and len(file.pages) == channels:
            values = np.stack([page.asarray() for page in file.pages], axis=-1)  # (H, W, C)
        elif values.ndim == 3 and not layout.is_interleaved:
            values = values.transpose(1, 2, 0)  # (H, W, C)
    if values.ndim > 3:
        raise ValueError(f'a page of shape {values.shape}')
    return turn(np.atleast_3d(values), layout.orientation)


def decode(content: bytes) -> np.ndarray | None:
    """The values that OpenCV reads, as stored, colours in RGB; None where it reads none."""
    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim == 2:
        return values
    return values[..., [2, 1, 0, 3][: values.shape[2]]]  # BGR or BGRA -> RGB or RGBA


def turn(values: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W) or (H, W, C) values turned upright from one of EXIF's eight orientations."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values

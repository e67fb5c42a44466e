"""Drawing that the pictures share. Their background is transparent and their text a middle grey, so
that one file can be read on a light and on a dark page."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import hsv_to_rgb
from PIL import Image, ImageDraw, ImageFont

INK = (128, 128, 128, 255)
LABEL = 26  # pixels of the line of text above a picture
GREY = 118  # of masked patches: black and white occur in photographs


def new_canvas(width: int, height: int) -> Image.Image:
    """A transparent RGBA picture of the given size in pixels."""
    return Image.new('RGBA', (width, height), (0, 0, 0, 0))


def enlarge(pixels: np.ndarray, height: int, width: int) -> Image.Image:
    """uint8 (H, W, 3) -> picture of `height` x `width`, interpolated: photographs of 32 px are
    easier to recognise without visible pixels."""
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def write(
    picture: Image.Image,
    xy: tuple[int, int],
    text: str,
    size: int = 14,
    fill: tuple[int, ...] = INK,
) -> None:
    """Draw `text` with its left edge and vertical middle at `xy`."""
    font = ImageFont.load_default(size)
    ImageDraw.Draw(picture).text(xy, text, fill=fill, font=font, anchor='lm')


def labelled(picture: Image.Image, text: str) -> Image.Image:
    """A picture below a line of text."""
    canvas = new_canvas(picture.width, picture.height + LABEL)
    write(canvas, (0, LABEL // 2), text)
    canvas.paste(picture, (0, LABEL))
    return canvas


def outline(picture: Image.Image, box: tuple[float, float, float, float]) -> None:
    """Draw a rectangle (left, top, right, bottom; the last two exclusive) that is visible on every
    photograph: a dark line around a light one."""
    left, top, right, bottom = box
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left - 1, top - 1, right, bottom), outline=(20, 20, 20))
    draw.rectangle((left, top, right - 1, bottom - 1), outline=(255, 255, 255))


def beside(
    pictures: Sequence[Image.Image], gap: int = 12, columns: int | None = None
) -> Image.Image:
    """Pictures in rows of `columns` (None: one row). A column is as wide as its widest picture, and
    all rows are as high as the highest picture."""
    columns = min(columns or len(pictures), len(pictures))
    widths = [max(picture.width for picture in pictures[c::columns]) for c in range(columns)]
    height = max(picture.height for picture in pictures)
    lines = -(-len(pictures) // columns)
    sheet = new_canvas(sum(widths) + gap * (columns - 1), lines * (height + gap) - gap)
    for index, picture in enumerate(pictures):
        line, column = divmod(index, columns)
        left = sum(widths[:column]) + gap * column
        sheet.paste(picture, (left, line * (height + gap)))
    return sheet


def spread(total: int, count: int) -> np.ndarray:
    """`count` indices below `total` at equal steps, or all of them where there are fewer."""
    return np.linspace(0, total - 1, min(total, count)).round().astype(int)


def on_white(picture: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3), for backends without transparency."""
    white = Image.new('RGBA', picture.size, 'white')
    return np.array(Image.alpha_composite(white, picture.convert('RGBA')).convert('RGB'))


def to_png(picture: Image.Image) -> bytes:
    """The PNG file of a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, 'PNG', optimize=True)
    return buffer.getvalue()


def as_colours(images: np.ndarray) -> np.ndarray:
    """(..., C) -> (..., 3): the first three channels, or else the first one as grey."""
    if images.shape[-1] >= 3:
        return images[..., :3]
    return np.repeat(images[..., :1], 3, axis=-1)


def as_picture(stored: np.ndarray) -> np.ndarray:
    """(H, W, C), BGR if C is 3, uint8 or floats from 0 to 255 -> uint8 RGB (H, W, 3)."""
    colours = stored[..., ::-1] if stored.shape[-1] == 3 else as_colours(stored)
    return np.ascontiguousarray(colours.astype(np.uint8))


def default_palette(count: int) -> np.ndarray:
    """(count, 3) uint8 colours, neighbours far apart in hue."""
    index = np.arange(count)
    hue = index * 0.618034 % 1  # steps of the golden ratio never come close to each other
    saturation, value = np.where(index % 2, 0.9, 0.65), np.where(index % 3, 0.95, 0.7)
    colours = hsv_to_rgb(np.stack([hue, saturation, value], axis=1))
    return (255 * colours).round().astype(np.uint8)


def check_images(images: np.ndarray, patch_size: int) -> tuple[int, int]:
    """Grid (rows, columns) of patches of uint8 images (M, H, W, 3).

    Raises ValueError for other types and shapes, and where the patch size does not divide H and W.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f'images must be uint8 of shape (M, H, W, 3), got {images.dtype} {images.shape}'
        )
    height, width = images.shape[1:3]
    if height % patch_size or width % patch_size:
        raise ValueError(f'patch_size {patch_size} does not divide images of {height} x {width}')
    return height // patch_size, width // patch_size

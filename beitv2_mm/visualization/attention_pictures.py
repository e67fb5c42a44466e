"""Pictures of attention: an image (H, W, 3) and its maps (heads, rows, columns) -> heat maps, masks
with contours, an overview."""

import math

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

from beitv2_mm.visualization.canvas import GREY, beside, new_canvas, outline, write

RED = (214, 40, 40, 255)
YELLOW = (255, 221, 51)
LABEL = 24


def colour_table(levels: int = 256) -> np.ndarray:
    """Colours from least to most attention: (levels, 3) uint8."""
    return (255 * colormaps['viridis'](np.linspace(0, 1, levels))[:, :3]).round().astype(np.uint8)


def heat_map(values: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Values (rows, columns) -> picture of (width, height) pixels, each patch in one colour; the
    colours span the map's own range."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    colours = colour_table()[(255 * scaled).round().astype(int)]
    return Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)


def mask_picture(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """The image, dark outside the mask (rows, columns), with the mask's contours in yellow."""
    shade = Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST)
    dark = Image.blend(image, Image.new('RGB', image.size, (GREY // 3,) * 3), 0.75)
    picture = Image.composite(image, dark, shade)
    draw = ImageDraw.Draw(picture)
    rows, columns = mask.shape
    width, height = image.size
    line = max(2, width // 240)
    padded = np.pad(mask, 1)
    for row, column in np.argwhere(padded[1:, 1:] != padded[:-1, 1:]):  # edges above a patch
        y = min(row * height // rows, height - 1)
        ends = (column * width // columns, y), ((column + 1) * width // columns, y)
        draw.line(ends, fill=YELLOW, width=line)
    for row, column in np.argwhere(padded[1:, 1:] != padded[1:, :-1]):  # edges left of a patch
        x = min(column * width // columns, width - 1)
        draw.line(
            ((x, row * height // rows), (x, (row + 1) * height // rows)), fill=YELLOW, width=line
        )
    return picture


def mark_patch(image: Image.Image, grid: tuple[int, int], row: int, column: int) -> Image.Image:
    """The image with one patch of the (rows, columns) grid outlined and a cross hair to find it."""
    (width, height), (rows, columns) = image.size, grid
    left, right = column * width // columns, (column + 1) * width // columns
    top, bottom = row * height // rows, (row + 1) * height // rows
    picture = image.copy()
    draw = ImageDraw.Draw(picture)
    x, y = (left + right) // 2, (top + bottom) // 2
    line = max(1, width // 240)
    for ends in (
        ((0, y), (left, y)),
        ((right, y), (width, y)),
        ((x, 0), (x, top)),
        ((x, bottom), (x, height)),
    ):
        draw.line(ends, fill=RED[:3], width=line)
    outline(picture, (left, top, right, bottom))
    return picture


def attention_tiles(
    image: Image.Image, maps: np.ndarray, row: int, column: int, tile: int = 220
) -> list[Image.Image]:
    """The marked image, the mean of the maps (heads, rows, columns) and each head over the image,
    every one `tile` pixels wide and labelled."""
    size = (tile, round(tile * image.height / image.width))
    small = image.resize(size, Image.Resampling.BICUBIC)
    shown = [('query patch', mark_patch(small, maps.shape[1:], row, column))]
    for label, values in [
        ('mean of heads', maps.mean(axis=0)),
        *((f'head {i}, max {100 * head.max():.1f} %', head) for i, head in enumerate(maps)),
    ]:
        mixed = Image.blend(small, heat_map(values, size), 0.7)
        _outline_patch(mixed, maps.shape[1:], row, column)
        shown.append((label, mixed))
    tiles = []
    for label, picture in shown:
        labelled = new_canvas(size[0], size[1] + LABEL)
        write(labelled, (0, LABEL // 2 - 1), label)
        labelled.paste(picture, (0, LABEL))
        tiles.append(labelled)
    return tiles


def _outline_patch(picture: Image.Image, grid: tuple[int, int], row: int, column: int) -> None:
    (width, height), (rows, columns) = picture.size, grid
    outline(
        picture,
        (
            column * width / columns,
            row * height / rows,
            (column + 1) * width / columns,
            (row + 1) * height / rows,
        ),
    )


def overview(
    image: Image.Image,
    maps: np.ndarray,
    row: int,
    column: int,
    caption: str = '',
    warning: str = '',
) -> Image.Image:
    """Everything in one picture: the image with its query patch, the mean, all heads.

    Args:
        maps: (heads, rows, columns).
        warning: a line in red above the picture.
    """
    tiles = attention_tiles(image, maps, row, column)
    sheet = beside(tiles, columns=max(3, math.ceil(math.sqrt(1.6 * len(tiles)))))
    lines = [(warning, RED)] if warning else []
    lines += [(line, (GREY,) * 3 + (255,)) for line in caption.splitlines()]
    top = 26 * len(lines)
    picture = new_canvas(sheet.width, sheet.height + top)
    for index, (text, fill) in enumerate(lines):
        write(picture, (0, 26 * index + 11), text, 16, fill)
    picture.paste(sheet, (0, top))
    return picture


def stamp(picture: Image.Image, text: str) -> Image.Image:
    """The picture with a line of text on a red bar at its top."""
    stamped = picture.convert('RGB')
    height = max(14, min(28, picture.height // 8))
    ImageDraw.Draw(stamped).rectangle((0, 0, picture.width, height), fill=RED[:3])
    write(stamped, (4, height // 2), text, max(9, height - 10), (255, 255, 255, 255))
    return stamped

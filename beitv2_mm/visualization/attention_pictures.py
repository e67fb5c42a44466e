"""Pictures of attention: an image and its maps (heads, rows, columns) -> heat maps, masks with
contours, an overview."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from beitv2_mm.visualization.canvas import GREY, beside, labelled, new_canvas, outline, write

RED = (214, 40, 40, 255)
YELLOW = (255, 221, 51)
LINE = 26  # pixels of a line of the caption


def attention_pictures(
    image: Image.Image,
    maps: np.ndarray,
    masks: Mapping[str, np.ndarray],
    row: int,
    column: int,
    caption: str,
    warning: str = '',
) -> dict[str, Image.Image]:
    """The attention of one patch, as pictures by file name: img, select, overview, and of each head
    a heat map attn-headN and its masks.

    Args:
        maps: (heads, rows, columns).
        masks: masks of that shape, by the beginning of their file names.
        row, column: the patch.
        warning: a line in red in the overview; the heads are then stamped as random, too.
    """
    heads = {f'attn-head{head}': heat_map(values, image.size) for head, values in enumerate(maps)}
    for name, each in masks.items():
        heads |= {f'{name}_head{head}': mask_picture(image, m) for head, m in enumerate(each)}
    if warning:
        heads = {name: stamp(picture, 'random weights') for name, picture in heads.items()}
    caption += f'\nquery patch: row {row}, column {column}'
    return heads | {
        'img': image,
        'select': mark_patch(image, maps.shape[1:], row, column),
        'overview': overview(image, maps, row, column, caption, warning),
    }


def colour_table() -> np.ndarray:
    """Colours from least to most attention: (256, 3) uint8."""
    return (255 * colormaps['viridis'](np.arange(256))[:, :3]).round().astype(np.uint8)


def heat_map(values: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Values (rows, columns) -> picture of (width, height) pixels, each patch in one colour; the
    colours span the map's own range."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    colours = colour_table()[(255 * scaled).round().astype(int)]
    return Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)


def mask_picture(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """The image, dark outside the mask (rows, columns), with the mask's contours in yellow."""
    inside = Image.fromarray(mask).convert('L').resize(image.size, Image.Resampling.NEAREST)
    dark = Image.blend(image, Image.new('RGB', image.size, (GREY // 3,) * 3), 0.75)
    picture = Image.composite(image, dark, inside)
    line = max(2, image.width // 240)
    inner = inside.filter(ImageFilter.MinFilter(2 * line + 1))
    picture.paste(YELLOW, mask=ImageChops.difference(inside, inner))
    return picture


def mark_patch(image: Image.Image, grid: tuple[int, ...], row: int, column: int) -> Image.Image:
    """The image with one patch of the (rows, columns) grid outlined and a cross hair to find it."""
    left, top, right, bottom = box = _patch_box(image.size, grid, row, column)
    width, height = image.size
    picture = image.copy()
    draw = ImageDraw.Draw(picture)
    x, y = (left + right) // 2, (top + bottom) // 2
    for ends in (
        ((0, y), (left, y)),
        ((right, y), (width, y)),
        ((x, 0), (x, top)),
        ((x, bottom), (x, height)),
    ):
        draw.line(ends, fill=RED[:3], width=max(1, width // 240))
    outline(picture, box)
    return picture


def _patch_box(
    size: tuple[int, int], grid: tuple[int, ...], row: int, column: int
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a patch in a picture of (width, height) pixels."""
    (width, height), (rows, columns) = size, grid
    left, right = (c * width // columns for c in (column, column + 1))
    top, bottom = (r * height // rows for r in (row, row + 1))
    return left, top, right, bottom


def attention_tiles(
    image: Image.Image, maps: np.ndarray, row: int, column: int, tile: int = 220
) -> list[Image.Image]:
    """The marked image, the mean of the maps (heads, rows, columns) and each head over the image,
    every one `tile` pixels wide and labelled."""
    grid = maps.shape[1:]
    size = (tile, round(tile * image.height / image.width))
    small = image.resize(size, Image.Resampling.BICUBIC)
    tiles = [labelled(mark_patch(small, grid, row, column), 'query patch')]
    heads = {f'head {i}, max {100 * head.max():.1f} %': head for i, head in enumerate(maps)}
    for label, values in {'mean of heads': maps.mean(axis=0), **heads}.items():
        mixed = Image.blend(small, heat_map(values, size), 0.7)
        outline(mixed, _patch_box(size, grid, row, column))
        tiles.append(labelled(mixed, label))
    return tiles


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
    top = LINE * len(lines)
    picture = new_canvas(sheet.width, sheet.height + top)
    for index, (text, fill) in enumerate(lines):
        write(picture, (0, LINE * index + 11), text, 16, fill)
    picture.paste(sheet, (0, top))
    return picture


def stamp(picture: Image.Image, text: str) -> Image.Image:
    """The picture with a line of text on a red bar at its top."""
    stamped = picture.convert('RGB')
    height = max(14, min(28, picture.height // 8))
    ImageDraw.Draw(stamped).rectangle((0, 0, picture.width, height), fill=RED[:3])
    write(stamped, (4, height // 2), text, max(9, height - 10), (255, 255, 255, 255))
    return stamped

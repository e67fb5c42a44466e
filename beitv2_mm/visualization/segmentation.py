"""Label maps as pictures: (H, W, 3) and (H, W) -> overlay, with a legend; several side by side."""

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from beitv2_mm.visualization.canvas import enlarge, new_canvas, write

ROW, GAP, FONT = 20, 8, 14
CAPTION = 112


def default_palette(count: int) -> np.ndarray:
    """(count, 3) uint8 colours, neighbours far apart in hue."""
    golden = 0.618034  # steps of the golden ratio never come close to each other
    colors = [
        colorsys.hsv_to_rgb(i * golden % 1, 0.9 if i % 2 else 0.65, 0.95 if i % 3 else 0.7)
        for i in range(count)
    ]
    return (255 * np.array(colors).reshape(count, 3)).round().astype(np.uint8)


def draw_overlay(
    image: np.ndarray, labels: np.ndarray, palette: np.ndarray, opacity: float = 0.5
) -> np.ndarray:
    """The image under the colours of its labels, (H, W, 3) uint8; labels without colour stay clear.

    Raises:
        ValueError: image and label map differ in size.
    """
    if image.shape[:2] != labels.shape:
        raise ValueError(f'An image of {image.shape[:2]} has a label map of {labels.shape}.')
    known = labels < len(palette)
    colors = palette[np.where(known, labels, 0)]
    mixed = (1 - opacity) * image + opacity * colors
    return np.where(known[..., None], mixed.round(), image).astype(np.uint8)


def draw_with_legend(
    image: np.ndarray,
    labels: np.ndarray,
    palette: np.ndarray,
    classes: Sequence[str],
    opacity: float = 0.5,
) -> Image.Image:
    """`draw_overlay` and, at its right, the classes in the image, the largest first."""
    height, width = labels.shape
    counts = np.bincount(labels[labels < len(classes)], minlength=len(classes))
    shown = [i for i in np.argsort(-counts, kind='stable') if counts[i]]
    texts = [f'{classes[i]}  {counts[i] / labels.size:.0%}' for i in shown]
    font = ImageFont.load_default(FONT)
    widest = max((font.getlength(text) for text in texts), default=0)
    canvas = new_canvas(
        int(width + 4 * GAP + ROW + widest), max(height, ROW * len(shown) + 2 * GAP)
    )
    canvas.paste(Image.fromarray(draw_overlay(image, labels, palette, opacity)), (0, 0))
    pen = ImageDraw.Draw(canvas)
    left = width + GAP
    for row, (i, text) in enumerate(zip(shown, texts, strict=True)):
        top = GAP + row * ROW
        pen.rectangle((left, top, left + ROW - 4, top + ROW - 4), fill=(*palette[i].tolist(), 255))
        write(canvas, (left + ROW + GAP, top + ROW // 2 - 2), text, FONT)
    return canvas


def compare_labels(
    images: np.ndarray,
    rows: Mapping[str, np.ndarray],
    palette: np.ndarray,
    classes: Sequence[str],
    tile: int = 96,
) -> Image.Image:
    """Images (M, H, W, 3) uint8 in a row, and below each its overlay for every label map (M, H, W)
    of ``rows``, named at the left; at the bottom, the classes that occur.

    Class 0 is background and stays clear.
    """
    font = ImageFont.load_default(FONT)
    step = tile + GAP // 2
    width = CAPTION + len(images) * step
    present = sorted({int(k) for maps in rows.values() for k in np.unique(maps)} - {0})
    entries = [(k, int(font.getlength(classes[k])) + ROW + 2 * GAP) for k in present]
    lines: list[list[tuple[int, int]]] = [[]]  # of the legend: (class, left edge)
    left = CAPTION
    for k, room in entries:
        if left + room > width and lines[-1]:
            lines.append([])
            left = CAPTION
        lines[-1].append((k, left))
        left += room
    height = (1 + len(rows)) * step + GAP + ROW * len(lines)
    canvas = new_canvas(width, height)
    for line, (label, maps) in enumerate(
        [('image', np.zeros(images.shape[:3], int)), *rows.items()]
    ):
        write(canvas, (0, line * step + tile // 2), label, FONT)
        for column, (image, labels) in enumerate(zip(images, maps, strict=True)):
            large = np.asarray(enlarge(image, tile, tile))
            shown = Image.fromarray(labels.astype(np.uint8)).resize(
                (tile, tile), Image.Resampling.NEAREST
            )
            clear = np.where(np.asarray(shown) == 0, len(palette), np.asarray(shown))
            tinted = draw_overlay(large, clear, palette, 0.6)
            canvas.paste(Image.fromarray(tinted), (CAPTION + column * step, line * step))
    pen = ImageDraw.Draw(canvas)
    for index, entries in enumerate(lines):
        top = (1 + len(rows)) * step + GAP + index * ROW
        for k, left in entries:
            pen.rectangle(
                (left, top, left + ROW - 4, top + ROW - 4), fill=(*palette[k].tolist(), 255)
            )
            write(canvas, (left + ROW + GAP // 2, top + ROW // 2 - 2), classes[k], FONT)
    return canvas

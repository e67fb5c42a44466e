"""Label maps as pictures: (H, W, 3) and (H, W) -> overlay, with a legend; several side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from beitv2_mm.visualization.canvas import beside, enlarge, new_canvas, write

ROW, GAP, FONT = 20, 8, 14
CAPTION = 112


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


def draw_legend(colours: np.ndarray, texts: Sequence[str]) -> Image.Image:
    """Rows of a colour, (n, 3) uint8, and its text."""
    font = ImageFont.load_default(FONT)
    widest = max((font.getlength(text) for text in texts), default=0)
    canvas = new_canvas(int(2 * GAP + ROW + widest), ROW * len(texts) + 2 * GAP)
    pen = ImageDraw.Draw(canvas)
    for row, (colour, text) in enumerate(zip(colours.tolist(), texts, strict=True)):
        top = GAP + row * ROW
        pen.rectangle((0, top, ROW - 4, top + ROW - 4), fill=(*colour, 255))
        write(canvas, (ROW + GAP, top + ROW // 2 - 2), text, FONT)
    return canvas


def draw_with_legend(
    image: np.ndarray,
    labels: np.ndarray,
    palette: np.ndarray,
    classes: Sequence[str],
    opacity: float = 0.5,
) -> Image.Image:
    """`draw_overlay` and, at its right, the classes in the image, the largest first."""
    counts = np.bincount(labels[labels < len(classes)], minlength=len(classes))
    shown = [i for i in np.argsort(-counts, kind='stable') if counts[i]]
    texts = [f'{classes[i]}  {counts[i] / labels.size:.0%}' for i in shown]
    overlay = Image.fromarray(draw_overlay(image, labels, palette, opacity))
    return beside([overlay, draw_legend(palette[shown], texts)], GAP)


def compare_labels(
    images: np.ndarray,
    rows: Mapping[str, np.ndarray],
    palette: np.ndarray,
    classes: Sequence[str],
    tile: int = 96,
) -> Image.Image:
    """Images (M, H, W, 3) uint8 in a row, and below each its overlay for every label map (M, H, W)
    of ``rows``, named at the left; at the right, the classes that occur.

    Class 0 is background and stays clear.
    """
    strips = []
    for label, maps in {'image': np.zeros(images.shape[:3], int), **rows}.items():
        caption = new_canvas(CAPTION - GAP // 2, tile)
        write(caption, (0, tile // 2), label, FONT)
        tiles = [caption]
        for image, labels in zip(images, maps, strict=True):
            shown = Image.fromarray(labels.astype(np.uint8)).resize(
                (tile, tile), Image.Resampling.NEAREST
            )
            clear = np.where(np.asarray(shown) == 0, len(palette), np.asarray(shown))
            large = np.asarray(enlarge(image, tile, tile))
            tiles.append(Image.fromarray(draw_overlay(large, clear, palette, 0.6)))
        strips.append(beside(tiles, GAP // 2))
    present = sorted({int(k) for maps in rows.values() for k in np.unique(maps)} - {0})
    legend = draw_legend(palette[present], [classes[k] for k in present])
    return beside([beside(strips, GAP // 2, columns=1), legend], GAP)

"""Generated images in a grid, and decoded ones beside their originals."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from beitv2_mm.visualization.canvas import as_colours, beside, enlarge, labelled

TILE = 96  # pixels of the longer side of an image


def draw_samples(images: np.ndarray, names: Sequence[str] = (), columns: int = 10) -> Image.Image:
    """uint8 (M, H, W, 3) -> a grid, with the name of each image above it if there are any."""
    tiles = [_tile(image) for image in images]
    if any(names):
        tiles = [labelled(tile, name) for tile, name in zip(tiles, names, strict=True)]
    return beside(tiles, columns=columns)


def draw_reconstructions(images: np.ndarray, decoded: np.ndarray) -> Image.Image:
    """A row for each pair of uint8 (M, H, W, 3): image, decoded from its codes, and the absolute
    difference, of which white is 255."""
    columns = 2 if len(images) > 4 else 1
    rows: list[Image.Image] = []
    for image, made in zip(images, decoded, strict=True):
        difference = np.abs(image.astype(np.int16) - made).astype(np.uint8)
        tiles = [_tile(pixels) for pixels in (image, made, difference)]
        if len(rows) < columns:
            titles = ('image', 'from its codes', 'difference')
            tiles = [labelled(tile, title) for tile, title in zip(tiles, titles, strict=True)]
        rows.append(beside(tiles))
    return beside(rows, columns=columns)


def to_bytes(images: Tensor) -> np.ndarray:
    """(M, C, H, W) in [0, 1] -> (M, H, W, 3) uint8."""
    pixels = (images.float() * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    return as_colours(pixels.cpu().numpy())


def _tile(image: np.ndarray) -> Image.Image:
    factor = TILE / max(image.shape[:2])
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    return enlarge(image, height, width)

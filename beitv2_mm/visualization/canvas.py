"""What the pictures share. Their background is transparent and their text a middle grey, so that
one file reads well on a light and on a dark page."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK = (128, 128, 128, 255)
GREY = 118  # of masked patches: neither black nor white, which photographs contain


def new_canvas(width: int, height: int) -> Image.Image:
    """A transparent RGBA picture of the given size in pixels."""
    return Image.new('RGBA', (width, height), (0, 0, 0, 0))


def enlarge(pixels: np.ndarray, height: int, width: int) -> Image.Image:
    """uint8 (H, W, 3) -> picture of `height` x `width`, smooth: photographs of 32 px are easier to
    recognise without their steps."""
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def write(picture: Image.Image, xy: tuple[int, int], text: str, size: int = 14) -> None:
    """Draw `text` with its left edge and vertical middle at `xy`."""
    font = ImageFont.load_default(size)
    ImageDraw.Draw(picture).text(xy, text, fill=INK, font=font, anchor='lm')


def check_images(images: np.ndarray, patch_size: int) -> tuple[int, int]:
    """Grid (rows, columns) of patches of uint8 images (M, H, W, 3).

    Raises ValueError for other types and shapes, and where the patch size does not divide H and W.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f'images must be uint8 of shape (M, H, W, 3), got {images.dtype} {images.shape}'
        )
    height, width = images.shape[1:3]
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(f'patch_size {patch_size} does not divide images of {height} x {width}')
    return height // patch_size, width // patch_size


def check_patches(name: str, values: np.ndarray, num_images: int, num_patches: int) -> np.ndarray:
    """One value a patch, (M, N) or (M, rows, columns) -> (M, N); ValueError if counts differ."""
    if values.shape[:1] != (num_images,) or values[0].size != num_patches:
        raise ValueError(
            f'{name} must hold {num_images} x {num_patches} values (images x patches), '
            f'got shape {values.shape}'
        )
    return values.reshape(num_images, num_patches)

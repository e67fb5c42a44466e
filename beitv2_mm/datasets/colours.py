"""Decoded images of any mode -> RGB, with transparency laid on white; their orientation."""

import numpy as np
from PIL import Image

ORIENTATION = 274  # the tag of EXIF and TIFF


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of a loaded image; 1, upright, where EXIF is damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # the pixels are loaded already: only the tag is lost
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """An RGB image from a loaded one.

    Raises:
        ValueError: the image has 32 bits, so that what is white is not stated.
    """
    if image.mode == 'F' or (image.mode == 'I' and image.format == 'TIFF'):
        raise ValueError('what is white is not stated: save it as 8 or 16 bits')
    if image.mode == 'RGB' and 'transparency' not in image.info:
        return image
    if image.has_transparency_data:
        image = image.convert('RGBA')
        canvas = Image.new('RGBA', image.size, 'white')
        image = Image.alpha_composite(canvas, image)
    return image.convert('RGB')


def deep_to_rgb(values: np.ndarray) -> np.ndarray:
    """(H, W), or (H, W, C) of grey or colours, with or without alpha -> (H, W, 3)."""
    values = np.atleast_3d(values)
    if values.shape[2] in (2, 4):
        share = values[..., -1:] / 255
        blended = values[..., :-1] * share + 255 * (1 - share)
        values = blended if values.dtype == np.float32 else np.rint(blended).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))

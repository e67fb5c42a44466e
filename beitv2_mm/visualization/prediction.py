"""What masked image modelling predicts, shown by real patches that stand for codes."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from beitv2_mm.visualization.canvas import (
    GREY,
    beside,
    check_images,
    check_patches,
    enlarge,
    new_canvas,
    write,
)

GAP, LABEL = 6, 26


def prediction_picture(
    images: np.ndarray,
    masks: np.ndarray,
    predicted: np.ndarray,
    actual: np.ndarray,
    examples: Mapping[int, np.ndarray],
    patch_size: int,
    tile: int = 140,
) -> Image.Image:
    """Each image, its masked version, and the image with patches of the predicted and of the
    tokenizer's codes in the masked places; with how many of the predicted codes are right.

    Args:
        images: uint8 (M, H, W, 3).
        masks: (M, rows, columns), true where hidden.
        predicted, actual: codes of the same shape; those at masked patches are read.
        examples: a patch for each code, see `example_patches`.
    """
    rows, columns = check_images(images, patch_size)
    shape = (len(images), rows * columns)
    hidden, guesses, truths = (
        check_patches(name, values, *shape)
        for name, values in (('masks', masks), ('predicted', predicted), ('actual', actual))
    )
    width = round(tile * images.shape[2] / images.shape[1])
    grey: Mapping[int, np.ndarray] = {-1: np.full(3, GREY, np.uint8)}
    strips = []
    for image, mask, guess, truth in zip(images, hidden.astype(bool), guesses, truths, strict=True):
        right = int((guess == truth)[mask].sum())
        versions = {
            'image': image,
            'masked': _paint(image, mask, np.full(len(mask), -1), grey, patch_size),
            f'predicted: {right}/{mask.sum()}': _paint(image, mask, guess, examples, patch_size),
            "tokenizer's codes": _paint(image, mask, truth, examples, patch_size),
        }
        strip = new_canvas(len(versions) * (width + GAP) - GAP, tile + LABEL)
        for column, (label, version) in enumerate(versions.items()):
            write(strip, (column * (width + GAP), LABEL // 2), label, 16)
            strip.paste(enlarge(version, tile, width), (column * (width + GAP), LABEL))
        strips.append(strip)
    return beside(strips, gap=20, columns=2)


def _paint(
    image: np.ndarray,
    mask: np.ndarray,
    codes: np.ndarray,
    examples: Mapping[int, np.ndarray],
    patch_size: int,
) -> np.ndarray:
    """The image with the example of its code in every masked place (N,)."""
    painted = image.copy()
    columns = image.shape[1] // patch_size
    for patch in np.flatnonzero(mask):
        top, left = patch // columns * patch_size, patch % columns * patch_size
        painted[top : top + patch_size, left : left + patch_size] = examples[int(codes[patch])]
    return painted

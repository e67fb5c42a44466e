"""What masked image modelling sees and predicts: images beside their masked versions, and real
patches in place of the codes predicted."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from beitv2_mm.visualization.canvas import GREY, beside, check_images, enlarge, labelled

GAP = 4


def masked_images(
    images: np.ndarray, masks: np.ndarray, patch_size: int, tile: int = 128
) -> Image.Image:
    """uint8 images (M, H, W, 3) and masks (M, N) or (M, rows, columns), true where hidden ->
    picture of pairs (original, masked input), four pairs a row, each `tile` pixels high.

    Raises ValueError for arrays that do not fit.
    """
    hidden = np.asarray(masks, dtype=bool).reshape(len(images), *check_images(images, patch_size))
    pairs = []
    for image, mask in zip(images, hidden, strict=True):
        original = _tile(image, tile)
        pairs.append(beside([original, _masked(original, mask)], GAP))
    return beside(pairs, 3 * GAP, columns=4)


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
        predicted, actual: codes of the same shape; only those of masked patches are used.
        examples: code -> the patch (height, width, 3) that stands for it.
    """
    check_images(images, patch_size)
    strips = []
    for image, mask, guess, truth in zip(images, masks, predicted, actual, strict=True):
        original = _tile(image, tile)
        right = int((guess == truth)[mask].sum())
        versions = {
            'image': original,
            'masked': _masked(original, mask),
            f'predicted: {right}/{mask.sum()}': _tile(_paint(image, mask, guess, examples), tile),
            "tokenizer's codes": _tile(_paint(image, mask, truth, examples), tile),
        }
        tiles = [labelled(version, label) for label, version in versions.items()]
        strips.append(beside(tiles, GAP))
    return beside(strips, gap=20, columns=2)


def _tile(image: np.ndarray, height: int) -> Image.Image:
    """An image (H, W, 3), enlarged to a height in pixels."""
    return enlarge(image, height, round(height * image.shape[1] / image.shape[0]))


def _masked(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """A copy whose masked patches are grey; the mask is (rows, columns).

    Masked after enlarging: before it, grey would bleed into the patches that stay visible.
    """
    masked = picture.copy()
    hidden = Image.fromarray(mask).resize(picture.size, Image.Resampling.NEAREST)
    masked.paste((GREY, GREY, GREY), (0, 0), hidden)
    return masked


def _paint(
    image: np.ndarray, mask: np.ndarray, codes: np.ndarray, examples: Mapping[int, np.ndarray]
) -> np.ndarray:
    """The image with the example of its code in every masked place; mask and codes are (rows,
    columns)."""
    painted = image.copy()
    for row, column in np.argwhere(mask):
        patch = examples[int(codes[row, column])]
        top, left = row * patch.shape[0], column * patch.shape[1]
        painted[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return painted

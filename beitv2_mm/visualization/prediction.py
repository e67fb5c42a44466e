"""What masked image modelling predicts, shown by real patches that stand for codes."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from beitv2_mm.models.tokenizer import unit_float
from beitv2_mm.visualization.canvas import (
    GREY,
    as_colours,
    beside,
    check_images,
    check_patches,
    enlarge,
    new_canvas,
    write,
)

GAP, LABEL = 6, 26
BATCH = 64


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (M, H, W, C) -> uint8 (M, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


@torch.no_grad()
def image_codes(tokenizer: nn.Module, images: np.ndarray) -> np.ndarray:
    """uint8 images (M, H, W, C) -> codes (M, rows, columns)."""
    device = next(tokenizer.parameters()).device
    parts = [tokenizer.get_codes(part.to(device)).cpu() for part in to_tensor(images).split(BATCH)]
    return torch.cat(parts).unflatten(1, tokenizer.encoder.grid).numpy()


@torch.no_grad()
def example_patches(
    tokenizer: nn.Module, images: np.ndarray, codes: Iterable[int]
) -> dict[int, np.ndarray]:
    """For each code the real patch nearest to it: the one whose latent has the largest cosine to
    the code's vector, among all patches of uint8 images (M, H, W, C).

    Returns:
        code -> uint8 (patch height, patch width, 3).
    """
    wanted = sorted({int(code) for code in codes})
    device = next(tokenizer.parameters()).device
    vectors = tokenizer.quantize.decode(torch.tensor(wanted, device=device))  # (C, d)
    best = torch.full((len(wanted),), -torch.inf, device=device)
    where = torch.zeros(len(wanted), dtype=torch.long, device=device)
    seen = 0
    for part in to_tensor(images).split(BATCH):
        latents = F.normalize(tokenizer.encode(part.to(device)).flatten(0, 1), dim=-1)
        cosine, index = (vectors @ latents.T).max(dim=1)
        where = torch.where(cosine > best, index + seen, where)
        best = torch.maximum(best, cosine)
        seen += len(latents)
    (rows, columns), (height, width) = tokenizer.encoder.grid, tokenizer.encoder.patch_size
    examples = {}
    for code, position in zip(wanted, where.tolist(), strict=True):
        image, patch = divmod(position, rows * columns)
        top, left = patch // columns * height, patch % columns * width
        examples[code] = as_colours(images[image, top : top + height, left : left + width])
    return examples


@torch.no_grad()
def predict_codes(pretrainer: nn.Module, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Codes that the main branch predicts at masked patches, -1 at the others.

    Args:
        pretrainer: a `BEiTV2Pretrainer` in eval mode.
        images: uint8 (M, H, W, C).
        masks: (M, rows, columns) bool.

    Returns:
        (M, rows, columns).
    """
    mask = torch.from_numpy(masks).to(pretrainer.mean.device)
    pixels = unit_float(to_tensor(images).to(mask.device))
    tokens = pretrainer.masked_tokens((pixels - pretrainer.mean) / pretrainer.std, mask)
    predicted = torch.full(mask.flatten(1).shape, -1, device=mask.device)
    predicted[mask.flatten(1)] = pretrainer.head(**tokens)['main'].argmax(dim=1)
    return predicted.view(mask.shape).cpu().numpy()


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


def draw_predictions(
    pretrainer: nn.Module,
    tokenizer: nn.Module,
    images: np.ndarray,
    masks: np.ndarray,
    others: np.ndarray,
) -> Image.Image:
    """`prediction_picture` of images and masks; the patches that stand for codes come from other
    images, so that no masked patch stands for itself.

    Args:
        images, others: uint8 (M, H, W, C), (L, H, W, C).
        masks: (M, rows, columns) bool.
    """
    predicted = predict_codes(pretrainer, images, masks)
    actual = image_codes(tokenizer, images)
    codes = np.concatenate([predicted[masks], actual[masks]])
    examples = example_patches(tokenizer, others, codes)
    return prediction_picture(
        as_colours(images), masks, predicted, actual, examples, tokenizer.encoder.patch_size[0]
    )

"""Codes of a tokenizer and of masked image modelling for pictures, from uint8 (M, H, W, C)."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from beitv2_mm.models.tokenizer import unit_float
from beitv2_mm.visualization.canvas import as_colours
from beitv2_mm.visualization.prediction import prediction_picture

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
    """For each code the nearest patch of uint8 images (M, H, W, C): the one whose latent has the
    largest cosine to the code's vector.

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


def draw_predictions(
    pretrainer: nn.Module,
    tokenizer: nn.Module,
    images: np.ndarray,
    masks: np.ndarray,
    others: np.ndarray,
) -> Image.Image:
    """Draws a `prediction_picture` of images and masks.

    The patches that represent codes come from other images, so that no masked patch represents
    itself.

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

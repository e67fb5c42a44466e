"""Fits patch embeddings to other channels and patch sizes: (D, C, h, w) -> (D, C', h', w')."""

from math import ceil

from timm.layers import resample_patch_embed
from torch import Tensor


def fit_channels(weight: Tensor, channels: int) -> Tensor:
    """Weights for another number of channels; images whose channels are equal give the same output.

    The channels are repeated in order and scaled by C / C', as in timm. If C does not divide C',
    each new channel also gets an equal share of what is then missing in the sum.
    """
    old = weight.shape[1]
    repeated = weight.repeat(1, ceil(channels / old), 1, 1)[:, :channels] * (old / channels)
    missing = weight.sum(1, keepdim=True) - repeated.sum(1, keepdim=True)
    return repeated + missing / channels


def fit_patch_embed(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Weights of ``shape``, which has the same D as ``weight``.

    The patch size is changed by the pseudo-inverse of resizing an image (FlexiViT, section 3.4):
    an enlarged patch gives the same token as before.
    """
    dtype = weight.dtype
    if weight.shape[1] != shape[1]:
        weight = fit_channels(weight.float(), shape[1])
    if weight.shape[2:] != shape[2:]:
        weight = resample_patch_embed(weight.float(), list(shape[2:]))
    return weight.to(dtype)

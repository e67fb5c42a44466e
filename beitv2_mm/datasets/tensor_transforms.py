"""Augmentation on tensors: (H, W, C) arrays, as in any mm pipeline, -> the same.

The arrays are uint8 or floats from 0 to 255, in BGR if C is 3.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torchvision.transforms import v2

from beitv2_mm.registry import TRANSFORMS


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) BGR -> (3, H, W) RGB, without a copy if `to_array` made the array.

    Other numbers of channels keep their order.
    """
    image = image[..., ::-1] if image.shape[-1] == 3 else image
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def to_array(image: torch.Tensor) -> np.ndarray:
    """(3, H, W) RGB -> (H, W, 3) BGR, a view; other numbers of channels keep their order."""
    array: np.ndarray = image.permute(1, 2, 0).numpy()
    return array[..., ::-1] if array.shape[-1] == 3 else array


@TRANSFORMS.register_module()
class TorchvisionTransforms(BaseTransform):
    """Transforms of `torchvision.transforms.v2` on ``results['img']``.

    They get a (C, H, W) tensor, RGB if C is 3, of uint8 or of floats from 0 to 255. Floats are
    clipped to that range afterwards, because interpolation may leave it.

    Their randomness is PyTorch's global state, which the training loops of this package seed for
    each sample (`beitv2_mm.engine.loops.ResumableLoader`).

    Args:
        transforms: a config for each; ``type`` is the class or its full name, and ``interpolation``
            may be a word ('bicubic').
    """

    def __init__(self, transforms: Sequence[dict]) -> None:
        self.transforms = v2.Compose([_build(config) for config in transforms])

    def transform(self, results: dict) -> dict:
        tensor = self.transforms(to_tensor(results['img']))
        image = to_array(tensor.clamp(0, 255) if tensor.is_floating_point() else tensor)
        results.update(img=image, img_shape=image.shape[:2])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.transforms})'


def _build(config: dict) -> Any:
    config = dict(config)
    if isinstance(config.get('interpolation'), str):
        config['interpolation'] = v2.InterpolationMode(config['interpolation'])
    return TRANSFORMS.build(config)

"""Loading and augmenting on uint8 tensors; before and after a step, images are what they are in any
mm pipeline: (H, W, 3) uint8 arrays, BGR."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torchvision.transforms import v2

from beitv2_mm.datasets.reading import read_tensor
from beitv2_mm.datasets.transforms import LoadImageFromFile
from beitv2_mm.registry import TRANSFORMS


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) BGR -> (3, H, W) RGB; no copy where `to_array` made it."""
    return torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1)


def to_array(image: torch.Tensor) -> np.ndarray:
    """(3, H, W) RGB -> (H, W, 3) BGR, a view."""
    array: np.ndarray = image.permute(1, 2, 0).numpy()
    return array[..., ::-1]


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """The same pixels, read faster: see `beitv2_mm.datasets.reading.read_tensor`."""

    def read(self, path: str) -> np.ndarray:
        return to_array(read_tensor(path))


@TRANSFORMS.register_module()
class TorchvisionTransforms(BaseTransform):
    """Transforms of `torchvision.transforms.v2` on ``results['img']`` as a (3, H, W) uint8 tensor.

    Their randomness is PyTorch's global state, which the data loader's workers seed
    (:func:`beitv2_mm.datasets.epoch_worker_init`).

    Args:
        transforms: a config for each, ``type`` being the class or its full name; ``interpolation``
            may be a word ('bicubic').
    """

    def __init__(self, transforms: Sequence[dict]) -> None:
        self.transforms = v2.Compose([_build(config) for config in transforms])

    def transform(self, results: dict) -> dict:
        image = to_array(self.transforms(to_tensor(results['img'])))
        results.update(img=image, img_shape=image.shape[:2])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.transforms})'


def _build(config: dict) -> Any:
    config = dict(config)
    if isinstance(config.get('interpolation'), str):
        config['interpolation'] = v2.InterpolationMode(config['interpolation'])
    return TRANSFORMS.build(config)

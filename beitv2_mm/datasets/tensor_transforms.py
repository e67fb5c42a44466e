"""Loading and augmenting on uint8 tensors; before and after a step, images are what they are in any
mm pipeline: (H, W, 3) uint8 arrays, BGR."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torchvision import transforms as v1
from torchvision.transforms import v2

from beitv2_mm.datasets.reading import read_tensor
from beitv2_mm.datasets.transforms import LoadImageFromFile
from beitv2_mm.registry import TRANSFORMS

GREY = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue


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


class LinearColorJitter(v1.ColorJitter):
    """Brightness, contrast and saturation in random order as one linear map: (3, H, W) uint8, RGB.

    The factors are those of torchvision's ColorJitter. It rounds and clips after every step, this
    one once at the end: colours that one step clips and another brings back are not lost.
    Hue is not part of it, being no linear map.
    """

    def __init__(
        self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0
    ) -> None:
        super().__init__(brightness, contrast, saturation)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        order, brightness, contrast, saturation, _ = self.get_params(
            self.brightness, self.contrast, self.saturation, self.hue
        )
        pixels = image.flatten(1).float()  # (3, H W)
        mean = pixels.mean(dim=1).numpy()
        matrix: np.ndarray = np.eye(3, dtype=np.float32)
        offset: np.ndarray = np.zeros(3, np.float32)
        for step in order.tolist():
            if step == 0 and brightness is not None:
                matrix, offset = brightness * matrix, brightness * offset
            elif step == 1 and contrast is not None:
                grey = GREY @ (matrix @ mean + offset)
                matrix, offset = contrast * matrix, contrast * offset + (1 - contrast) * grey
            elif step == 2 and saturation is not None:
                blend = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * GREY
                matrix, offset = blend @ matrix, blend @ offset
        changed = torch.addmm(
            torch.from_numpy(offset).float()[:, None], torch.from_numpy(matrix).float(), pixels
        )
        return changed.round_().clamp_(0, 255).byte().view_as(image)


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

"""Colour jitter of a whole batch where the model is: (B, 3, H, W) uint8, BGR -> RGB in [0, 1]."""

import torch
from mmengine.model import ImgDataPreprocessor
from torch import Tensor

from beitv2_mm.registry import MODELS

GREY = (0.299, 0.587, 0.114)  # of red, green, blue
BRIGHTNESS, CONTRAST, SATURATION = range(3)


def jitter(image: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation of every image as one linear map, clipped once.

    Args:
        image: (B, 3, H, W) in [0, 255], BGR.
        order: (B, 3), a permutation of `BRIGHTNESS`, `CONTRAST` and `SATURATION`: what is first.
        factors: (B, 3) of these, in the same order; 1 changes nothing.

    Returns:
        (B, 3, H, W) float in [0, 1], RGB.
    """
    pixels = image.flatten(2).float()  # (B, 3, H W)
    mean = pixels.mean(dim=2, keepdim=True)
    grey = pixels.new_tensor(GREY)[None, None]  # (1, 1, 3)
    matrix = torch.eye(3, device=image.device).flip(0).div(255).expand(len(image), 3, 3)
    offset = torch.zeros_like(mean)
    for step, factor in zip(order.unbind(1), factors.unbind(1), strict=True):
        factor = factor[:, None, None]
        # Colours are blended: with black, with the mean grey of the image or with their own grey.
        rest_of_mean = (1 - factor) * (step == CONTRAST)[:, None, None]
        rest_of_own = (1 - factor) * (step == SATURATION)[:, None, None]
        grey_mean = grey @ (matrix @ mean + offset)  # (B, 1, 1)
        offset = factor * offset + rest_of_own * (grey @ offset) + rest_of_mean * grey_mean
        matrix = factor * matrix + rest_of_own * (grey @ matrix)
    return torch.baddbmm(offset, matrix, pixels).clamp_(0, 1).view(image.shape)


@MODELS.register_module()
class JitterPreprocessor(ImgDataPreprocessor):
    """Bytes to the device, and there RGB in [0, 1], in training with other colours.

    Each factor is drawn from [1 - value, 1 + value], the order of the three changes for each image,
    as in torchvision's ColorJitter. It clips and rounds after every step, this one clips once at
    the end: colours that one step clips and another brings back are not lost.

    The randomness is PyTorch's global state on the CPU, which `EpochSeedHook` seeds.
    """

    def __init__(
        self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0
    ) -> None:
        values = brightness, contrast, saturation
        if not all(0 <= value <= 1 for value in values):
            raise ValueError(
                f'brightness, contrast and saturation are {values}; expected 0 to 1 each.'
            )
        super().__init__(mean=[0.0] * 3, std=[255.0] * 3, bgr_to_rgb=True, non_blocking=True)
        self.values = values

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Order and factors of ``count`` images, see `jitter`."""
        order = torch.rand(count, 3).argsort(dim=1)
        factors = 1 + torch.tensor(self.values) * (2 * torch.rand(count, 3) - 1)
        return order, factors.gather(1, order)

    def forward(self, data: dict, training: bool = False) -> dict | list:
        """See mmengine's ImgDataPreprocessor; ``inputs`` are images of one size."""
        if not training:
            return super().forward(data, training)
        data = self.cast_data(data)  # type: ignore[assignment]
        image = data['inputs']
        if not isinstance(image, Tensor):
            image = torch.stack(list(image))
        order, factors = (t.to(image.device, non_blocking=True) for t in self.draw(len(image)))
        with torch.autocast(image.device.type, enabled=False):
            return {'data_samples': None, **data, 'inputs': jitter(image, order, factors)}

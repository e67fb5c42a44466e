"""Tells real patches from decoded ones: images (B, C, H, W) -> scores (B, 1, rows, columns)."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


class PatchDiscriminator(nn.Sequential):
    """Convolutions of stride 2 that score overlapping patches (Isola et al., pix2pix, 2017,
    section 3.2.2), without norms, so that it is the same on any number of GPUs.

    Args:
        channels: of the images.
        width: channels after the first convolution; they double with each of the others.
        depth: convolutions of stride 2.
    """

    def __init__(self, channels: int = 3, width: int = 64, depth: int = 3) -> None:
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Conv2d(channels, width << i, 4, 2, 1), nn.LeakyReLU(0.2)]
            channels = width << i
        super().__init__(*layers, nn.Conv2d(channels, 1, 3, 1, 1))

    def losses(self, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of who made the images, and the hinge loss of the discriminator.

        Both are for one backward pass and one optimizer: the first reaches only ``made``, the
        second only the weights.
        """
        fixed: Mapping[str, Tensor] = {k: v.detach() for k, v in self.named_parameters()}
        generator = -functional_call(self, dict(fixed), (made,)).mean()
        own = F.relu(1 - self(real)).mean() + F.relu(1 + self(made.detach())).mean()
        return generator, own / 2

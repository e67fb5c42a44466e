"""ViTDet's simple feature pyramid: the last map of a plain backbone -> maps of several strides."""

from collections.abc import Sequence
from math import log2

from mmengine.model import BaseModule
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from beitv2_mm.models.base import InitCfg
from beitv2_mm.registry import MODELS

# ViTDet's norm of necks and heads, over the channels of every pixel
MODELS.register_module('LN2d', module=LayerNorm2d)


def _rescale(channels: int, factor: float) -> tuple[list[nn.Module], int]:
    """Layers that enlarge a map by a power of two or reduce it, and their number of channels."""
    if factor <= 1:
        size = round(1 / factor)
        return ([nn.MaxPool2d(size, size)] if size > 1 else []), channels
    layers: list[nn.Module] = []
    for _ in range(int(log2(factor))):
        if layers:
            layers += [LayerNorm2d(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        channels //= 2
    return layers, channels


@MODELS.register_module()
class BEiTV2FeaturePyramid(BaseModule):
    """Maps of ``strides`` from the last map of the backbone (Li et al., 2022, section 3).

    Deconvolutions enlarge it and max-pooling reduces it; then a 1 x 1 and a 3 x 3 convolution
    follow, each with a LayerNorm over channels. Serves as a neck of mmdet and of mmseg.

    Args:
        in_channels: width of the backbone.
        out_channels: channels of every level.
        patch_size: of the backbone, the stride of its map.
        strides: of the levels in pixels.
        num_outs: number of levels; those after the last stride take every second pixel of the level
            before, as in FPN. None for as many as there are strides.

    Raises:
        ValueError: a stride is not the patch size times a power of two.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        patch_size: int = 16,
        strides: Sequence[int] = (4, 8, 16, 32),
        num_outs: int | None = None,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_outs = len(strides) if num_outs is None else num_outs
        self.levels = nn.ModuleList()
        for stride in strides:
            factor = patch_size / stride
            if not log2(factor).is_integer() or in_channels < factor:
                raise ValueError(
                    f'A level of stride {stride} cannot be made from patches of {patch_size} '
                    f'pixels: strides are the patch size times a power of two.'
                )
            rescale, channels = _rescale(in_channels, factor)
            self.levels.append(
                nn.Sequential(
                    *rescale,
                    nn.Conv2d(channels, out_channels, 1, bias=False),
                    LayerNorm2d(out_channels),
                    nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                    LayerNorm2d(out_channels),
                )
            )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, D, rows, columns), of which the last is used -> one map for each level."""
        levels = [level(maps[-1]) for level in self.levels]
        while len(levels) < self.num_outs:
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        return tuple(levels)

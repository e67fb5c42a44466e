"""Heads on the plain transformer: four maps of one stride -> strides 4, 8, 16, 32 -> logits."""

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads import FCNHead, UPerHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from beitv2_mm.registry import MODELS

STRIDES = (4, 8, 16, 32)


def pyramid_levels(patch_size: int, channels: int, norm_cfg: dict | None = None) -> list[nn.Module]:
    """Modules that take a map (B, channels, H / patch_size, W / patch_size) to each of `STRIDES`.

    Transposed convolutions enlarge the map, with ``norm_cfg`` (by default batch norm) and GELU
    between two of them; max pooling reduces it. The official code has patches of 16 and 8 pixels.

    Raises:
        ValueError: ``patch_size`` is not 4, 8 or 16.
    """
    if patch_size not in (4, 8, 16):
        raise ValueError(f'patch_size is 4, 8 or 16, but {patch_size!r} was given.')

    def double() -> nn.Module:
        return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)

    levels: list[nn.Module] = []
    for stride in STRIDES:
        if patch_size == 4 * stride:
            norm = build_norm_layer(norm_cfg or dict(type='BN'), channels)[1]
            levels.append(nn.Sequential(double(), norm, nn.GELU(), double()))
        elif patch_size == 2 * stride:
            levels.append(nn.Sequential(double()))
        elif patch_size == stride:
            levels.append(nn.Identity())
        else:
            levels.append(nn.MaxPool2d(stride // patch_size))
    return levels


def pixel_accuracy(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Percentage of correct pixels, from (B, classes, H, W) logits and (B, H, W) labels.

    mmseg's function indexes by masks, so that the host would wait for the device.
    """
    counted = labels != ignore_index
    correct = (logits.argmax(dim=1) == labels) & counted
    return 100 * correct.sum() / counted.sum().clamp(min=1)


class _Losses(BaseDecodeHead):
    """mmseg's losses of a decode head, and `pixel_accuracy`."""

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        labels = self._stack_batch_gt(batch_data_samples)  # (B, 1, H, W)
        size = labels.shape[2:]
        logits = resize(seg_logits, size, mode='bilinear', align_corners=self.align_corners)
        weight = None if self.sampler is None else self.sampler.sample(logits, labels)
        labels = labels.squeeze(1)
        losses: dict[str, Tensor] = {}
        several = isinstance(self.loss_decode, nn.ModuleList)
        for function in self.loss_decode if several else [self.loss_decode]:
            value = function(logits, labels, weight=weight, ignore_index=self.ignore_index)
            losses[function.loss_name] = losses.get(function.loss_name, 0) + value
        losses['acc_seg'] = pixel_accuracy(logits, labels, self.ignore_index)
        return losses


@MODELS.register_module()
class BEiTV2UPerHead(_Losses, UPerHead):
    """UPerNet on four blocks of a transformer, (B, D, rows, columns) each -> (B, classes, 4 rows,
    4 columns) for patches of 16 pixels.

    ``fpn1`` and ``fpn2`` are the official checkpoints' ``backbone.fpn1`` and ``backbone.fpn2``;
    `beitv2_mm.checkpoint` knows both names.

    Args:
        in_channels: width of the four maps, the same for all.
        patch_size: 16, 8 or 4.
        kwargs: of mmseg's UPerHead.

    Raises:
        ValueError: the maps are not four of one width, or ``patch_size`` is not 4, 8 or 16.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        patch_size: int = 16,
        in_index: Sequence[int] = (0, 1, 2, 3),
        **kwargs: Any,
    ) -> None:
        if len(in_channels) != len(STRIDES) or len(set(in_channels)) != 1:
            raise ValueError(
                f'BEiTV2UPerHead reads four maps of one width, but in_channels is {in_channels}.'
            )
        super().__init__(in_channels=in_channels, in_index=in_index, **kwargs)
        self.fpn1, self.fpn2, self.fpn3, self.fpn4 = pyramid_levels(
            patch_size, in_channels[0], self.norm_cfg
        )

    def rescale(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Four maps of one stride -> the same maps at `STRIDES`."""
        levels = (self.fpn1, self.fpn2, self.fpn3, self.fpn4)
        return [level(x) for level, x in zip(levels, maps, strict=True)]

    def _transform_inputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return self.rescale(super()._transform_inputs(inputs))


@MODELS.register_module()
class BEiTV2FCNHead(_Losses, FCNHead):
    """mmseg's FCNHead on one level of the pyramid, (B, D, rows, columns) -> (B, classes, ...).

    With patches of 16 pixels, level 2 is the backbone's map itself. With smaller patches the map is
    first pooled to stride 16, as in the official code, whose backbone rescales for both heads.

    Args:
        patch_size: 16, 8 or 4.
        kwargs: of mmseg's FCNHead.
    """

    def __init__(self, patch_size: int = 16, in_index: int = 2, **kwargs: Any) -> None:
        super().__init__(in_index=in_index, **kwargs)
        self.rescale = pyramid_levels(patch_size, self.in_channels, self.norm_cfg)[in_index]

    def _transform_inputs(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.rescale(super()._transform_inputs(inputs))

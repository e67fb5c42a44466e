"""mmseg's segmentor for this backbone: (B, 3, H, W) -> (B, classes, H, W), any H and W."""

from collections.abc import Sequence
from itertools import product

import torch
from mmseg.models import EncoderDecoder
from torch import Tensor
from torch.nn import functional as F

from beitv2_mm.registry import MODELS
from beitv2_mm.segmentation.upernet_head import STRIDES


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """The starts of windows along one side; the last window ends with the image."""
    steps = max(size - window + stride - 1, 0) // stride
    return [max(min(step * stride, size - window), 0) for step in range(steps + 1)]


@MODELS.register_module()
class BEiTV2Segmentor(EncoderDecoder):
    """EncoderDecoder that runs sliding windows in batches and takes images of any size.

    ``test_cfg.windows_per_batch`` (8) bounds the memory of ``mode='slide'``: it is the number of
    windows of ``crop_size``, from one image or several, that go through the network at once.
    Windows that are too small for the coarsest level, or no multiple of the patch size, are padded
    with zeros, which are the mean colour, as in training.
    """

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """(B, 3, H, W) -> logits (B, classes, H, W)."""
        patch = getattr(self.backbone, 'patch_size', (1, 1))
        height, width = inputs.shape[2:]
        bottom, right = (
            max(size, STRIDES[-1]) - size + -max(size, STRIDES[-1]) % step
            for size, step in zip((height, width), patch, strict=True)
        )
        padded = F.pad(inputs, (0, right, 0, bottom))
        # mmseg's heads enlarge their logits to this shape
        logits = super().encode_decode(padded, [dict(img_shape=padded.shape[2:])])
        return logits[..., :height, :width]

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """(B, 3, H, W) -> the mean of the logits of overlapping windows, (B, classes, H, W)."""
        height, width = inputs.shape[2:]
        rows, columns = (
            min(window, size)
            for window, size in zip(self.test_cfg.crop_size, (height, width), strict=True)
        )
        tops = window_starts(height, rows, self.test_cfg.stride[0])
        lefts = window_starts(width, columns, self.test_cfg.stride[1])
        logits = inputs.new_zeros(len(inputs), self.out_channels, height, width)
        count = inputs.new_zeros(height, width)
        for top, left in product(tops, lefts):
            count[top : top + rows, left : left + columns] += 1
        windows = list(product(range(len(inputs)), tops, lefts))
        step = self.test_cfg.get('windows_per_batch', 8)
        if step < 1:
            raise ValueError(f'test_cfg.windows_per_batch is at least 1, but {step} was given.')
        for start in range(0, len(windows), step):
            places: Sequence[tuple[int, int, int]] = windows[start : start + step]
            crops = [inputs[i, :, y : y + rows, x : x + columns] for i, y, x in places]
            outputs = self.encode_decode(torch.stack(crops), batch_img_metas)
            for (i, y, x), output in zip(places, outputs, strict=True):
                logits[i, :, y : y + rows, x : x + columns] += output
        return logits.div_(count)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter and number of depths; the heads with the pyramid are the top."""
        depth: tuple[int, int] = self.backbone.get_layer_depth(param_name, f'{prefix}backbone.')
        return depth

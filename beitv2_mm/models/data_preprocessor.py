"""Moves a batch to the device: images (B, C, H, W) in [0, 1] and the masked patches.

The indices of the masked patches are computed on the host before the copy: if the device computed
them, the host would have to wait for their number in every step.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.model import ImgDataPreprocessor
from torch import Tensor

from beitv2_mm.registry import MODELS


class Masked(NamedTuple):
    """The masked patches of a batch, as many indices for every image."""

    mask: Tensor  # (B, rows, columns) or (B, N) bool
    patches: Tensor  # (B, M) indices, row by row; images with fewer masked patches are padded
    valid: Tensor | None  # (B, M), False at the padding; None without padding

    def to(self, device: torch.device, non_blocking: bool = False) -> 'Masked':
        """Copies the tensors to a device."""
        return Masked(*(x if x is None else x.to(device, non_blocking=non_blocking) for x in self))


def find_masked(mask: Tensor, num_masked: int | None = None) -> Masked:
    """Finds the masked patches of masks (B, rows, columns) or (B, N) bool.

    Args:
        mask: on the CPU; otherwise the host waits for the device.
        num_masked: smallest M; it grows if an image has more masked patches. None takes the
            largest number of any image.
    """
    flat = mask.flatten(1)
    counts = flat.sum(dim=1)
    most = max(int(counts.max()), min(num_masked or 0, flat.shape[1]))
    patches = flat.byte().sort(dim=1, descending=True, stable=True).indices[:, :most]
    valid = torch.arange(most, device=mask.device) < counts[:, None]  # (B, M)
    return Masked(mask, patches, None if bool(valid.all()) else valid)


def stack_masks(data_samples: Sequence[Any]) -> Tensor:
    """Stacks the masks of data samples: (B, rows, columns) or (B, N) bool."""
    return torch.stack([torch.as_tensor(sample.mask) for sample in data_samples]).bool()


@MODELS.register_module()
class UnitRGBPreprocessor(ImgDataPreprocessor):
    """Converts BGR pixels, as OpenCV decodes them, to RGB in [0, 1].

    Data samples stay on the host. ``mean`` 0 and ``std`` 255 describe the conversion to tools that
    invert it.

    Args:
        channels: number of channels of an image; only three channels are reversed.
    """

    def __init__(self, non_blocking: bool = True, channels: int = 3) -> None:
        values = 3 if channels == 3 else 1  # mmengine accepts 3 values, or 1 for all channels
        super().__init__(
            [0.0] * values,
            [255.0] * values,
            bgr_to_rgb=channels == 3,
            non_blocking=non_blocking,
        )
        self.channels = channels

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Images are bytes or floats (B, C, H, W) or a list of (C, H, W), from 0 to 255."""
        inputs = data['inputs']
        if not isinstance(inputs, Tensor):
            for image in inputs:
                self._check(image[None])
            if len({image.shape for image in inputs}) > 1:
                return dict(super().forward(data, training))  # pads the smaller ones
            inputs = torch.stack([*inputs])
        self._check(inputs)
        # Bytes are copied and flipped before they become floats, which are four times as large.
        inputs = inputs.to(self.device, non_blocking=self._non_blocking)
        inputs = (inputs.flip(1) if self.channels == 3 else inputs).float() / 255
        return {**data, 'inputs': inputs, 'data_samples': data.get('data_samples')}

    def _check(self, inputs: Tensor) -> None:
        if inputs.ndim == 4 and inputs.shape[1] == self.channels:
            return
        kind = 'colour images' if self.channels == 3 else f'images of {self.channels} channels'
        raise ValueError(
            f'A batch of {kind} is (B, {self.channels}, H, W), but {tuple(inputs.shape)} was '
            "given: channels of the data set and of the model's data_preprocessor must agree."
        )


@MODELS.register_module()
class MaskedImagePreprocessor(UnitRGBPreprocessor):
    """Adds ``masked``, the `Masked` of the data samples, for `BEiTV2Pretrainer`.

    Args:
        num_masked: number of masked patches of the recipe. Images with fewer are padded to it, so
            that a compiled step sees one shape; padding does not contribute to the loss.
        channels: see `UnitRGBPreprocessor`.
    """

    def __init__(
        self, num_masked: int | None = None, non_blocking: bool = True, channels: int = 3
    ) -> None:
        super().__init__(non_blocking, channels)
        self.num_masked = num_masked

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        batch = super().forward(data, training)
        samples = batch['data_samples']
        has_masks = samples and all('mask' in sample for sample in samples)
        if has_masks:  # not where features are extracted
            masked = find_masked(stack_masks(samples), self.num_masked)
            batch['masked'] = masked.to(self.device, self._non_blocking)
        return batch

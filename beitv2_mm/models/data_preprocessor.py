"""From the batch of a data loader to the device: images (B, C, H, W) in [0, 1] and masked patches.

What follows from the masks alone is computed on the host, before they are copied: on the device,
the host would have to wait for the result in every step.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.model import ImgDataPreprocessor
from torch import Tensor

from beitv2_mm.registry import MODELS


class Masked(NamedTuple):
    """Which patches are masked, in a number that is the same for all images of a batch."""

    mask: Tensor  # (B, rows, columns) or (B, N) bool
    patches: Tensor  # (B, M), row by row; an image with fewer masked patches is padded with others
    valid: Tensor | None  # (B, M), False at the padding; None where there is none

    def to(self, device: torch.device, non_blocking: bool = False) -> 'Masked':
        """A copy on a device."""
        return Masked(*(x if x is None else x.to(device, non_blocking=non_blocking) for x in self))


def find_masked(mask: Tensor, num_masked: int | None = None) -> Masked:
    """Masks (B, rows, columns) or (B, N) bool -> the masked patches.

    Args:
        mask: on the CPU, or the host waits for the device.
        num_masked: M, or more where an image has more masked patches; None for their maximum.
    """
    flat = mask.flatten(1)
    counts = flat.sum(dim=1)
    most = max(int(counts.max()), min(num_masked or 0, flat.shape[1]))
    patches = flat.byte().sort(dim=1, descending=True, stable=True).indices[:, :most]
    valid = torch.arange(most, device=mask.device) < counts[:, None]  # (B, M)
    return Masked(mask, patches, None if bool(valid.all()) else valid)


def stack_masks(data_samples: Sequence[Any]) -> Tensor:
    """The masks of data samples as one tensor: (B, rows, columns) or (B, N) bool."""
    return torch.stack([torch.as_tensor(sample.mask) for sample in data_samples]).bool()


@MODELS.register_module()
class UnitRGBPreprocessor(ImgDataPreprocessor):
    """BGR pixels, as OpenCV decodes them, to RGB in [0, 1]; data samples stay on the host.

    ``mean`` and ``std`` say how pixels 0 to 255 come back: 0 and 255.

    Args:
        channels: of an image; other numbers than 3 keep their order.
    """

    def __init__(self, non_blocking: bool = True, channels: int = 3) -> None:
        values = 3 if channels == 3 else 1  # mmengine allows no other number; one serves all
        super().__init__(
            [0.0] * values,
            [255.0] * values,
            bgr_to_rgb=channels == 3,
            non_blocking=non_blocking,
        )
        self.channels = channels

    def forward(self, data: dict, training: bool = False) -> dict:
        """Images are bytes or floats (B, C, H, W) or a list of (C, H, W), from 0 to 255."""
        inputs = data['inputs']
        if not isinstance(inputs, Tensor):
            for image in inputs:
                self._check(image[None])
            if len({image.shape for image in inputs}) > 1:
                return dict(super().forward(data, training))  # pads the smaller ones
            inputs = torch.stack([*inputs])
        self._check(inputs)
        # Bytes are copied and flipped, a quarter of what floats would be.
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
        num_masked: masked patches of the recipe, to which images with fewer are padded, so that a
            compiled step sees one shape. Padding takes part in no loss.
        channels: see `UnitRGBPreprocessor`.
    """

    def __init__(
        self, num_masked: int | None = None, non_blocking: bool = True, channels: int = 3
    ) -> None:
        super().__init__(non_blocking, channels)
        self.num_masked = num_masked

    def forward(self, data: dict, training: bool = False) -> dict:
        batch = super().forward(data, training)
        samples = batch['data_samples']
        if samples and all('mask' in sample for sample in samples):  # features need no masks
            masked = find_masked(stack_masks(samples), self.num_masked)
            batch['masked'] = masked.to(self.device, self._non_blocking)
        return batch

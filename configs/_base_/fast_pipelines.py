"""Training images on uint8 tensors: decoding, cropping and jittering take a fraction of the time.

Crop and flip are drawn as in the reference. The colour jitter comes after the crop, not before it:
its contrast factor turns around the mean grey of the crop, in the reference around that of the
whole image; and it clips colours once, not after every step. So recipes of the paper keep the
reference's.
"""

from mmpretrain.datasets import PackInputs
from torchvision.transforms.v2 import RandomHorizontalFlip, RandomResizedCrop

from beitv2_mm.datasets import (
    BlockwiseMask,
    LinearColorJitter,
    LoadImageFromFile,
    TorchvisionTransforms,
)

fast_tokenizer_pipeline = [
    dict(type=LoadImageFromFile),
    dict(
        type=TorchvisionTransforms,
        transforms=[
            dict(
                type=RandomResizedCrop,
                size=224,
                scale=(0.08, 1.0),
                interpolation='bicubic',
                antialias=True,
            ),
            dict(type=RandomHorizontalFlip),
        ],
    ),
    dict(type=PackInputs),
]
mim_crop = dict(
    type=TorchvisionTransforms,
    transforms=[
        dict(
            type=RandomResizedCrop,
            size=224,
            scale=(0.2, 1.0),
            interpolation='bicubic',
            antialias=True,
        ),
        dict(type=RandomHorizontalFlip),
    ],
)
fast_mim_pipeline = [
    dict(type=LoadImageFromFile),
    mim_crop,
    dict(type=LinearColorJitter, brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type=BlockwiseMask, patch_size=16, num_masked=75, min_block=16, min_aspect=0.3),
    dict(type=PackInputs),
]

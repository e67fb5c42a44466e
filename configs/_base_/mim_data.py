"""Images for masked image modelling: one random crop serves backbone and tokenizer."""

from mmcv.transforms import RandomFlip
from mmengine.config import read_base
from mmpretrain.datasets import CenterCrop, ColorJitter, PackInputs, RandomResizedCrop, ResizeEdge

from beitv2_mm.datasets import BlockwiseMask, ImageFolder, LoadImageFromFile
from beitv2_mm.engine import MIMMetric

with read_base():
    from .loaders import *

block_mask = dict(type=BlockwiseMask, patch_size=16, num_masked=75, min_block=16, min_aspect=0.3)
train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=ColorJitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.0, backend='cv2'),
    dict(type=RandomFlip, prob=0.5),
    dict(
        type=RandomResizedCrop,
        scale=224,
        crop_ratio_range=(0.2, 1.0),
        interpolation='bicubic',
        backend='pillow',
    ),
    block_mask,
    dict(type=PackInputs),
]
train_dataloader.update(
    batch_size=128,
    dataset=dict(type=ImageFolder, data_root='data/imagenet/train', pipeline=train_pipeline),
)

val_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=ResizeEdge, scale=256, edge='short', interpolation='bicubic', backend='pillow'),
    dict(type=CenterCrop, crop_size=224),
    block_mask,
    dict(type=PackInputs),
]
val_dataloader.update(
    batch_size=128,
    dataset=dict(
        type=ImageFolder, data_root='data/imagenet/val', pipeline=val_pipeline, test_mode=True
    ),
)
val_evaluator = dict(type=MIMMetric)
test_dataloader = val_dataloader
test_evaluator = val_evaluator

"""Images for tokenizer training: one random crop, [0, 1]. Any folder of images will do."""

from mmcv.transforms import RandomFlip
from mmengine.config import read_base
from mmpretrain.datasets import CenterCrop, PackInputs, RandomResizedCrop, ResizeEdge

from beitv2_mm.datasets import ImageFolder, LoadImageFromFile
from beitv2_mm.engine import TokenizerMetric

with read_base():
    from .loaders import *

train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(
        type=RandomResizedCrop,
        scale=224,
        crop_ratio_range=(0.08, 1.0),
        interpolation='bicubic',
        backend='pillow',
    ),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PackInputs),
]
train_dataloader.update(
    batch_size=64,
    dataset=dict(type=ImageFolder, data_root='data/imagenet/train', pipeline=train_pipeline),
)

val_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=ResizeEdge, scale=256, edge='short', interpolation='bicubic', backend='pillow'),
    dict(type=CenterCrop, crop_size=224),
    dict(type=PackInputs),
]
val_dataloader.update(
    batch_size=64,
    dataset=dict(
        type=ImageFolder, data_root='data/imagenet/val', pipeline=val_pipeline, test_mode=True
    ),
)
val_evaluator = dict(type=TokenizerMetric, num_codes=8192)
test_dataloader = val_dataloader
test_evaluator = val_evaluator

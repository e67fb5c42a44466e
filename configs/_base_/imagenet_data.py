"""ImageNet-1k for fine-tuning at 224 px: RandAugment (m9, std 0.5), random erasing 0.25."""

from mmcv.transforms import RandomFlip
from mmengine.config import read_base
from mmpretrain.datasets import (
    CenterCrop,
    PackInputs,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    ResizeEdge,
)
from mmpretrain.evaluation import Accuracy

from beitv2_mm.datasets import ImageFolder, LoadImageFromFile

with read_base():
    from .loaders import *

train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=RandomResizedCrop, scale=224, interpolation='bicubic', backend='pillow'),
    dict(type=RandomFlip, prob=0.5),
    dict(
        type=RandAugment,
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
    ),
    dict(
        type=RandomErasing,
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[103.53, 116.28, 123.675],
        fill_std=[57.375, 57.12, 58.395],
    ),
    dict(type=PackInputs),
]
train_dataloader.update(
    batch_size=128,
    dataset=dict(
        type=ImageFolder,
        data_root='data/imagenet/train',
        with_label=True,
        pipeline=train_pipeline,
    ),
)

test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=ResizeEdge, scale=256, edge='short', interpolation='bicubic', backend='pillow'),
    dict(type=CenterCrop, crop_size=224),
    dict(type=PackInputs),
]
val_dataloader.update(
    batch_size=128,
    dataset=dict(
        type=ImageFolder,
        data_root='data/imagenet/val',
        with_label=True,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type=Accuracy, topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator

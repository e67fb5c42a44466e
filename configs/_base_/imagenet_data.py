"""ImageNet-1k for fine-tuning at 224 px: RandAugment (m9, std 0.5), random erasing 0.25."""

from mmcv.transforms import RandomFlip
from mmengine.dataset import DefaultSampler, default_collate
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
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,  # every sample is seeded by itself, see ResumableLoader
    pin_memory=True,
    drop_last=True,
    sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type=default_collate),
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
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=False,
    pin_memory=True,
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=default_collate),
    dataset=dict(
        type=ImageFolder,
        data_root='data/imagenet/val',
        with_label=True,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_cfg = dict()
val_evaluator = dict(type=Accuracy, topk=(1, 5))
test_dataloader = val_dataloader
test_cfg = dict()
test_evaluator = val_evaluator

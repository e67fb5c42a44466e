"""Images for tokenizer training: one random crop, [0, 1]. Any folder of images will do."""

from mmcv.transforms import RandomFlip
from mmengine.dataset import DefaultSampler, default_collate
from mmpretrain.datasets import CenterCrop, PackInputs, RandomResizedCrop, ResizeEdge

from beitv2_mm.datasets import ImageFolder, LoadImageFromFile
from beitv2_mm.engine import TokenizerMetric

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
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,  # every sample is seeded by itself, see ResumableLoader
    pin_memory=True,
    drop_last=True,
    sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type=default_collate),
    dataset=dict(type=ImageFolder, data_root='data/imagenet/train', pipeline=train_pipeline),
)

val_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=ResizeEdge, scale=256, edge='short', interpolation='bicubic', backend='pillow'),
    dict(type=CenterCrop, crop_size=224),
    dict(type=PackInputs),
]
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=False,
    pin_memory=True,
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=default_collate),
    dataset=dict(
        type=ImageFolder, data_root='data/imagenet/val', pipeline=val_pipeline, test_mode=True
    ),
)
val_cfg = dict()
val_evaluator = dict(type=TokenizerMetric, num_codes=8192)
test_dataloader = val_dataloader
test_cfg = dict()
test_evaluator = val_evaluator

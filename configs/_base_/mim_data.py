"""Images for masked image modelling: one random crop serves backbone and tokenizer."""

from mmcv.transforms import RandomFlip
from mmengine.dataset import DefaultSampler, default_collate
from mmpretrain.datasets import CenterCrop, ColorJitter, PackInputs, RandomResizedCrop, ResizeEdge

from beitv2_mm.datasets import BlockwiseMask, ImageFolder, LoadImageFromFile
from beitv2_mm.engine import MIMMetric

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
train_dataloader = dict(
    batch_size=128,
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
    block_mask,
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
        type=ImageFolder, data_root='data/imagenet/val', pipeline=val_pipeline, test_mode=True
    ),
)
val_cfg = dict()
val_evaluator = dict(type=MIMMetric)
test_dataloader = val_dataloader
test_cfg = dict()
test_evaluator = val_evaluator

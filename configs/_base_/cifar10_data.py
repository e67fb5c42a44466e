"""CIFAR-10 as class folders (tools/prepare_cifar10.py): loading and splits.

100 images of each class are held out of the training folder to choose settings on.
"""

from mmcv.transforms import RandomFlip
from mmengine.dataset import DefaultSampler, default_collate
from mmpretrain.datasets import PackInputs

from beitv2_mm.datasets import ImageFolder, LoadImageFromFile

val_per_class = 100

train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PackInputs),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,  # every sample is seeded by itself, see ResumableLoader
    drop_last=True,
    sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type=default_collate),
    dataset=dict(
        type=ImageFolder,
        data_root='data/cifar10/train',
        with_label=True,
        subset='train',
        val_per_class=val_per_class,
        pipeline=train_pipeline,
    ),
)
val_pipeline = [dict(type=LoadImageFromFile), dict(type=PackInputs)]
val_dataloader = dict(
    batch_size=250,
    num_workers=1,
    persistent_workers=False,
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=default_collate),
    dataset=dict(
        type=ImageFolder,
        data_root='data/cifar10/train',
        with_label=True,
        subset='val',
        val_per_class=val_per_class,
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
val_cfg = dict()
test_dataloader = dict(
    batch_size=250,
    num_workers=1,
    persistent_workers=False,
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=default_collate),
    dataset=dict(
        type=ImageFolder,
        data_root='data/cifar10/test',
        with_label=True,
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
test_cfg = dict()
